"""The page that trains, in headless Chromium: it trains, and shows what it computed.

Needs the extra `browser`, and Chromium with its driver (Debian: chromium, chromium-driver).
"""

import re
import shutil
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

import npple

webdriver = pytest.importorskip("selenium.webdriver", reason="the extra browser is not installed")
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import Select, WebDriverWait  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no chromium with chromedriver")

PAGE = Path(__file__).parents[2] / "docs" / "train.html"
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync")
MODELS = ["shared bottom", "MMoE", "CGC", "PLE"]


@pytest.fixture(scope="module", params=[1280, 390], ids=["desktop", "phone"])
def opened(request, tmp_path_factory):
    """The page in a browser of some width."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.add_experimental_option("mobileEmulation", {
        "deviceMetrics": {"width": request.param, "height": 844, "pixelRatio": 1, "touch": False}})
    browser = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield browser
    browser.quit()


@pytest.fixture
def browser(opened):
    """The page as it is at first."""
    opened.get(PAGE.as_uri())
    return opened


def count(browser):
    return int(browser.find_element(By.ID, "count").text)


def shown(browser):
    """Model -> the cosine that its card holds, and the text of the card."""
    cards = browser.find_elements(By.CSS_SELECTOR, "[data-model]")
    return {card.get_attribute("data-model"): (
        float(card.find_element(By.CLASS_NAME, "cosine").get_attribute("data-value")), card.text)
        for card in cards}


def held(browser):
    """Model -> the last losses and the cosine that the page computed."""
    return browser.execute_script("""
        return Object.fromEntries(state.learners.map(({ name, history }) =>
            [name, [history.A.at(-1), history.B.at(-1), history.cosine.at(-1)]]))""")


def test_three_hundred_steps_on_opposite_tasks_bring_all_losses_down(browser):
    browser.find_element(By.ID, "correlation").send_keys(Keys.HOME)
    first = held(browser)
    browser.find_element(By.ID, "train").send_keys(Keys.ENTER)
    WebDriverWait(browser, 60).until(lambda browser: count(browser) == 300)
    last = held(browser)
    assert {*last} == {*MODELS}
    for name in MODELS:
        assert last[name][0] < first[name][0] / 10 and last[name][1] < first[name][1] / 10


def test_a_card_shows_the_losses_the_cosine_and_the_gates(browser):
    browser.find_element(By.ID, "one").click()
    assert count(browser) == 1
    numbers, cards = held(browser), shown(browser)
    for name in MODELS:
        (a, b, cosine), (value, text) = numbers[name], cards[name]
        assert value == cosine and f"{cosine:.3f} at the shared experts" in text
        assert f"A {a:.4f}" in text and f"B {b:.4f}" in text
    assert re.findall(r"[AB]\d (?=0)|s\d (?=0)|level\S+(?=:)", cards["PLE"][1]) == [
        "level1/A", "A1 ", "s1 ", "s2 ", "level1/B", "B1 ", "s1 ", "s2 ",
        "level1/shared", "A1 ", "B1 ", "s1 ", "s2 ",
        "level2/A", "A1 ", "s1 ", "s2 ", "level2/B", "B1 ", "s1 ", "s2 "]


def test_training_can_be_paused(browser):
    train = browser.find_element(By.ID, "train")
    train.click()
    assert train.text == "Pause"
    train.click()
    assert train.text == "Train 300 steps" and count(browser) < 300


def test_the_slider_makes_the_tasks_the_same(browser):
    browser.find_element(By.ID, "one").click()
    browser.find_element(By.ID, "correlation").send_keys(Keys.END)
    assert browser.find_element(By.ID, "alike").text == "1" and count(browser) == 0
    same = browser.execute_script("return state.learners[0].data.targets")
    assert same["A"] == pytest.approx(same["B"])


def test_nothing_is_wider_than_the_screen(browser):
    browser.find_element(By.ID, "one").click()
    wide = browser.execute_script("""
        const page = document.documentElement;
        return [...document.querySelectorAll('body *')].filter((each) =>
            each.getBoundingClientRect().right > page.clientWidth + 0.5)
            .map((each) => each.outerHTML)""")
    assert wide == []


def test_nothing_went_wrong_on_the_way(browser):
    browser.find_element(By.ID, "anew").click()
    browser.find_element(By.ID, "one").click()
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def drawn(browser):
    return browser.find_element(By.ID, "drawing").text


def step_to(browser, name):
    place = browser.execute_script("""
        for (const _ of hand.stops) {
            if (by('place').textContent !== arguments[0]) by('next').click();
        }
        return by('place').textContent""", name)
    assert place == name


def test_stepping_backward_shows_gradients_that_meet_as_a_sum(browser):
    step_to(browser, "loss of task B")
    assert "= 2.25" in drawn(browser) and "d" not in drawn(browser)
    step_to(browser, "gate of task A, backward")
    assert "dEs = +1\n" in drawn(browser)
    step_to(browser, "gate of task B, backward")
    assert "dEs = +1 - 1.5 = -0.5" in drawn(browser)
    assert "+1 - 1.5 = -0.5" in browser.find_element(By.ID, "formulas").text
    assert "dx = (0, 0)\n" in drawn(browser)  # from the gates, whose weights are 0
    browser.find_element(By.ID, "back").click()
    assert "- 1.5" not in drawn(browser)


def test_the_panel_has_all_gradients_of_a_gate(browser):
    step_to(browser, "gate of task A, backward")
    said = browser.find_element(By.ID, "formulas").text
    for line in ("dw = (dgA EA, dgA Es) = (2, 6)", "= (-1, 1)", "dW = sᵀ dz = ((-1, 1), (-2, 2))",
                 "ds = dz Wᵀ = (0, 0)"):
        assert line in said.replace("\n", "")


def test_the_walk_ends_with_the_sum_at_the_input(browser):
    browser.find_element(By.ID, "walk").send_keys(Keys.END)
    assert "dx = (1, 0) + (0, -1.5) + (-0.5, -0.5) = (0.5, -2)" in drawn(browser)
    assert not browser.find_element(By.ID, "next").is_enabled()


@pytest.mark.parametrize("way, says", [
    ("experts", "The losses are 0 and 4"), ("stopped", "dWs = (0, 0)"), ("", "")])
def test_the_example_by_hand_can_be_broken(browser, way, says):
    Select(browser.find_element(By.ID, "hand-break")).select_by_value("experts")
    Select(browser.find_element(By.ID, "hand-break")).select_by_value(way)
    browser.find_element(By.ID, "walk").send_keys(Keys.END)
    assert says in browser.find_element(By.ID, "hand-consequence").text
    shows = {"experts": "LA = 0", "stopped": "dEs = +1 - 1.5 → 0", "": "+1 - 1.5 = -0.5"}
    assert shows[way] in drawn(browser)


@pytest.mark.parametrize("way", ["gate", "experts", "selector", "stopped"])
def test_a_broken_ple_learns_beside_the_others_and_shows_what_is_lost(browser, way):
    Select(browser.find_element(By.ID, "break")).select_by_value(way)
    browser.find_element(By.ID, "one").click()
    assert len(shown(browser)) == 5
    whole, wrong = browser.execute_script(
        "return [state.learners[3], state.learners[4]].map(SHOWS[state.broken])")
    assert whole > 0 and wrong == 0
    said = browser.find_element(By.ID, "consequence").text
    assert f"{whole:#.2g} in PLE and is exactly 0 here" in said


def widths(browser, task):
    return [float(path.get_attribute("stroke-width")) for path in
            browser.find_elements(By.CSS_SELECTOR, f"#flow path.{task}")]


def test_the_drawing_of_a_model_has_a_line_for_each_edge_that_a_gradient_goes_along(browser):
    for name in MODELS:
        Select(browser.find_element(By.ID, "flow-model")).select_by_value(name)
        flows = browser.execute_script("return flows(chosenModel())")
        widest = max(max(edge["A"], edge["B"]) for edge in flows)
        for task in ("A", "B"):
            assert widths(browser, task) == pytest.approx(
                [max(12 * edge[task] / widest, 0.5) for edge in flows if edge[task]], abs=0.01)


def test_the_drawing_follows_a_broken_model(browser):
    Select(browser.find_element(By.ID, "break")).select_by_value("stopped")
    Select(browser.find_element(By.ID, "flow-model")).select_by_visible_text(
        "PLE: no gradient to the shared experts")
    rows = browser.execute_script("""
        return [...document.querySelectorAll('#norms tbody tr')].map((row) =>
            [...row.children].map((cell) => cell.textContent))""")
    assert ["level1/shared/experts", "input", "exactly 0", "exactly 0"] in rows
    Select(browser.find_element(By.ID, "break")).select_by_value("")
    assert browser.find_element(By.ID, "flow-model").get_property("value") == "PLE"


def test_the_page_speaks_chinese_and_english(browser):
    browser.find_element(By.CSS_SELECTOR, "[data-language=zh]").click()
    Select(browser.find_element(By.ID, "break")).select_by_value("gate")
    assert browser.execute_script("return document.documentElement.lang") == "zh"
    browser.find_element(By.ID, "tour-start").click()
    said = browser.execute_script("""
        return range(hand.stops.length).map((stop) => {
            go(stop);
            return document.body.innerText;
        }).join()""")
    assert {*re.findall(r"[A-Za-z]{4,}", said)} <= {
        "English", "MMoE", "Adam", "npple", "docs", "level", "shared", "softmax"}
    browser.find_element(By.CSS_SELECTOR, "[data-language=en]").click()
    said = browser.find_element(By.TAG_NAME, "body").text.replace("中文", "")
    assert not re.search(r"[\u4e00-\u9fff]", said)


def test_everything_that_is_said_is_said_in_both_languages(browser):
    assert browser.execute_script("return [Object.keys(ZH).sort(), Object.keys(EN).sort()]") == [
        browser.execute_script("return Object.keys(ZH).sort()")] * 2
    assert browser.execute_script(
        "return Object.values(SAYS).every(([en, zh]) => typeof en === typeof zh && en !== zh)")


def test_the_tour_has_five_steps_that_show_what_they_say(browser):
    def step(number):
        assert browser.find_element(By.ID, "tour-place").text == f"Tour, {number} of 5"
        return browser.find_element(By.ID, "tour-text").text

    tour = browser.find_element(By.ID, "tour-start")
    tour.send_keys(Keys.ENTER)  # on with the keyboard alone
    assert "yA = 2 and yB = 2.5" in step(1) and "LB = 2.25" in drawn(browser)
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    assert "+1 - 1.5 = -0.5" in step(2) and "dEs = +1 - 1.5 = -0.5" in drawn(browser)
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    assert "A's dz is (-1, 1)" in step(3) and "dz = (-1, 1)" in drawn(browser)
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    assert "negative in each model" in step(4)
    browser.execute_script("state.running = false")  # it trains
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    browser.execute_script("state.running = false")
    assert "no gradient passes" in step(5)
    assert browser.execute_script("return chosenModel().broken") == "stopped"
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    assert not browser.find_element(By.ID, "tour").is_displayed()
    assert browser.switch_to.active_element == tour


@pytest.mark.parametrize("name", MODELS)
def test_the_cosine_shown_is_that_of_npple_for_the_same_parameters(browser, name):
    browser.find_element(By.ID, "correlation").send_keys(Keys.HOME)
    browser.find_element(By.ID, "one").click()
    found = browser.execute_script("""
        const { model, params, data } = state.learners.find(({ name }) => name === arguments[0]);
        return { model, params, data }""", name)
    model, data = npple.network.Network.from_dict(found["model"]), found["data"]
    params = {name: np.array(values, float) for name, values in found["params"].items()}
    targets = {task: np.array(values) for task, values in data["targets"].items()}
    shared = []
    for task in ("A", "B"):
        _, grads = model.loss_and_grads(params, np.array(data["inputs"]["x"]), targets,
                                        weights={"A": 0.0, "B": 0.0} | {task: 1.0})
        shared.append(np.concatenate([grads[name].ravel() for name in sorted(grads)
                                      if name.startswith("level1/shared/experts/")]))
    cosine = np.dot(*shared) / np.prod([np.linalg.norm(part) for part in shared])
    assert shown(browser)[name][0] == pytest.approx(cosine, abs=1e-6)


BOXES = """
    return [...document.querySelectorAll('#drawing text, #flow text')].map((text) => {
        const { left, top, right, bottom } = text.getBoundingClientRect();
        return [text.textContent, left, top, right, bottom]; })"""


@pytest.mark.parametrize("way", ["", "experts", "stopped"])
def test_no_text_of_the_drawings_lies_on_another(browser, way):
    for stop in (9, 19):
        browser.execute_script("breakHand(arguments[0]); go(arguments[1])", way, stop)
        for (a, *first), (b, *second) in combinations(browser.execute_script(BOXES), 2):
            room = 0.3 * min(first[3] - first[1], second[3] - second[1])  # what has no ink
            apart = (first[2] <= second[0] or second[2] <= first[0]
                     or first[3] <= second[1] + room or second[3] <= first[1] + room)
            assert apart, f"{a} and {b}"


def test_the_drawings_can_be_read_and_nothing_covers_them(browser):
    browser.find_element(By.ID, "tour-start").click()
    sizes, covering = browser.execute_script("""
        const size = (text) => text.ownerSVGElement.getScreenCTM().a
            * parseFloat(getComputedStyle(text).fontSize);
        return [[...document.querySelectorAll('#drawing text, #flow text')].map(size),
            [...document.querySelectorAll('body *')].filter((each) =>
                ['fixed', 'sticky'].includes(getComputedStyle(each).position)).length]""")
    assert min(sizes) > 8.5 and covering == 0
    assert not re.search(r"\b(Tab|key|click|hover|mouse)\b", browser.page_source.partition(
        '<script id="engine">')[0].partition("</style>")[2])


def test_every_control_has_a_name_and_is_come_to_and_seen_from_the_keyboard(browser):
    browser.find_element(By.ID, "tour-start").send_keys(Keys.ENTER)
    waiting = {control for control in browser.find_elements(
        By.CSS_SELECTOR, "button, input, select, summary")
        if control.is_displayed() and control.is_enabled()}
    assert len(waiting) > 10
    assert [each.get_attribute("outerHTML") for each in waiting if not each.accessible_name] == []
    for _ in range(len(waiting) + 3):  # the page itself and what was just come to
        ActionChains(browser).send_keys(Keys.TAB).perform()
        control = browser.switch_to.active_element
        waiting.discard(control)
        assert control.tag_name == "body" or browser.execute_script(
            "return getComputedStyle(arguments[0]).outlineStyle", control) == "solid"
    assert not waiting


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_light_and_dark(browser, scheme):
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {
        "features": [{"name": "prefers-color-scheme", "value": scheme}]})
    browser.execute_script("go(19)")
    ground, *inks = browser.execute_script("""
        const style = (element) => getComputedStyle(element);
        return [style(document.body).backgroundColor, style(document.body).color,
            ...[...document.querySelectorAll('.numbers span, label, b')].map((e) => style(e).color),
            ...[...document.querySelectorAll('svg text')].map((text) => style(text).fill)]""")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert (luminance(ground) > 0.5) == (scheme == "light")
    for ink in {*inks}:
        dark, light = sorted((luminance(ink), luminance(ground)))
        assert (light + 0.05) / (dark + 0.05) >= 4.5, ink  # WCAG 2, level AA


def luminance(color):
    """Of "rgb(r, g, b)", as WCAG 2 defines it."""
    channels = [int(part) / 255 for part in color.strip("rgba()").split(",")[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_with_reduced_motion_the_tour_jumps(opened):
    def tour(motion):
        """Whether the tour is where it was scrolled to at once."""
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {
            "features": [{"name": "prefers-reduced-motion", "value": motion}]})
        opened.get(PAGE.as_uri())
        return opened.execute_script("""
            visit(3);
            state.running = false;
            return Math.abs(by('tour').getBoundingClientRect().top) < 2""")

    assert tour("reduce")
    assert not tour("no-preference")
