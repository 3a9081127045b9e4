"""The page to explore, in headless Chromium: what it lights is what `npple.verify.isolation` says.

Needs the extra `browser`, and Chromium with its driver (Debian: chromium, chromium-driver).
"""

import shutil
from itertools import combinations

import pytest

import npple
from npple.draw import diagram, page

webdriver = pytest.importorskip("selenium.webdriver", reason="the extra browser is not installed")
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import Select, WebDriverWait  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no chromium with chromedriver")

TASKS = {"vtr": "binary", "vcr": "regression", "shr": "binary"}
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync")
LEVELS = ("cross_stitch", "sluice", "ml_mmoe", "snr_trans", "snr_aver", "ple")


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Opens a new browser on the page; `start(width, height, *flags)`."""
    file = tmp_path_factory.mktemp("page") / "npple.html"
    file.write_text(page(32, TASKS), encoding="utf-8")
    opened = []

    def start(width, height, *flags):
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        profile = tmp_path_factory.mktemp("profile")
        for flag in (*FLAGS, *flags, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.add_experimental_option("mobileEmulation", {
            "deviceMetrics": {"width": width, "height": height, "pixelRatio": 1, "touch": False}})
        browser = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
        opened.append(browser)
        browser.get(file.as_uri())
        return browser

    yield start
    for browser in opened:
        browser.quit()


@pytest.fixture(scope="module")
def desktop(start):
    return start(1280, 900, "--force-prefers-reduced-motion")


@pytest.fixture(scope="module")
def phone(start):
    return start(390, 844, "--force-prefers-reduced-motion")


@pytest.fixture
def browser(desktop):
    """The desktop's page as it is at first."""
    desktop.refresh()
    return desktop


def node(browser, name):
    return browser.find_element(By.CSS_SELECTOR, f".node[data-name='{name}']")


def lit(browser):
    """The parameter groups whose tensors are lit."""
    return set(browser.execute_script(
        "return [...document.querySelectorAll('.node.lit')].map(node => node.dataset.group)")
               ) - {""}


def reached(model, task):
    return {group for group, cell in npple.isolation(model).matrix[task].items()
            if cell == "reached"}


def matrix(browser):
    """The matrix on the page: task -> group -> what the cell says."""
    cells = browser.execute_script("""
        return [...document.querySelectorAll('#matrix td')].map(cell =>
            [cell.dataset.task, cell.parentElement.dataset.group, cell.textContent])""")
    found = {}
    for task, group, text in cells:
        found.setdefault(task, {})[group] = text
    return found


@pytest.mark.parametrize("task", TASKS)
def test_clicking_a_loss_lights_exactly_what_isolation_calls_reached(browser, task):
    model = npple.ple(32, TASKS, levels=2)
    assert lit(browser) == set()
    node(browser, f"loss/{task}").click()
    assert lit(browser) == reached(model, task)
    isolated = browser.find_elements(By.CSS_SELECTOR, ".node.isolated")
    assert ({one.get_attribute("data-name") for one in isolated}
            == set(diagram(model).node) - set(diagram(model).reached(task)))
    now = browser.execute_script("return [...document.querySelectorAll('#matrix td.now')].map("
                                 "cell => [cell.dataset.task, cell.parentElement.dataset.group])")
    assert {tuple(cell) for cell in now} == {(task, group) for group in reached(model, task)}
    node(browser, f"loss/{task}").click()  # once more lets go of it
    assert lit(browser) == set()


@pytest.mark.parametrize("name", npple.ARCHITECTURES)
def test_the_matrix_and_the_lights_follow_the_architecture(browser, name):
    Select(browser.find_element(By.ID, "model")).select_by_value(name)
    if name in LEVELS:
        Select(browser.find_element(By.ID, "levels")).select_by_value("3")
    model = npple.ARCHITECTURES[name](32, TASKS, **({"levels": 3} if name in LEVELS else {}))
    assert matrix(browser) == npple.isolation(model).matrix
    for task in TASKS:
        browser.find_element(By.CSS_SELECTOR, f"#losses button[value={task}]").click()
        assert lit(browser) == reached(model, task)


def test_the_counts_of_experts_can_be_changed(browser):
    for name, value in (("task_experts", "3"), ("shared_experts", "4")):
        Select(browser.find_element(By.ID, name)).select_by_value(value)
    ActionChains(browser).move_to_element(node(browser, "level2/vcr/experts")).perform()
    about = browser.find_element(By.ID, "about").text
    assert "level2/vcr/experts (3, B, 64)" in about and "x = level1/vcr" in about
    ActionChains(browser).move_to_element(node(browser, "level1/shared")).perform()
    about = browser.find_element(By.ID, "about").text
    assert "softmax(z), z = s W, s = input" in about and "dW = sᵀ dz, ds = dz Wᵀ" in about
    assert "layer1/weight (32, 13)" in about
    marked = browser.find_elements(By.CSS_SELECTOR, "#matrix tr.marked")
    assert [row.get_attribute("data-group") for row in marked] == ["level1/shared/gate"]


def test_the_gradient_travels_back_level_by_level(start):
    browser = start(1280, 900)  # with motion
    node(browser, "loss/vcr").click()
    step = browser.find_element(By.ID, "step")
    WebDriverWait(browser, 60).until(
        lambda browser: step.get_property("value") == step.get_property("max"))
    model = npple.ple(32, TASKS, levels=2)
    drawn = diagram(model)
    top, going = len(drawn.layers) - 1, drawn.reached("vcr")
    ActionChains(browser).move_to_element(step).click().send_keys(Keys.HOME).perform()
    for lowest in range(top, -1, -1):
        names = browser.execute_script(
            "return [...document.querySelectorAll('.node.lit')].map(node => node.dataset.name)")
        assert set(names) == {name for name in going if drawn.node[name].layer >= lowest}
        step.send_keys(Keys.ARROW_RIGHT)
    assert browser.find_element(By.ID, "place").text == "the input"


def test_everything_works_from_the_keyboard(browser):
    def press(*keys):
        ActionChains(browser).send_keys(*keys).perform()
        return browser.switch_to.active_element

    for _ in range(20):  # through the controls to the drawing, one stop
        if press(Keys.TAB).get_attribute("data-name"):
            break
    stop = browser.switch_to.active_element
    assert stop.get_attribute("data-name") == "loss/vtr"
    assert stop.get_attribute("role") == "button"
    assert browser.execute_script("return arguments[0].matches(':focus-visible')", stop)
    width = browser.execute_script(
        "return getComputedStyle(arguments[0].querySelector('.box')).strokeWidth", stop)
    assert float(width.removesuffix("px")) > 3  # the focus is seen
    assert press(Keys.ARROW_RIGHT).get_attribute("data-name") == "loss/vcr"
    assert press(Keys.ENTER).get_attribute("aria-pressed") == "true"
    assert lit(browser) == reached(npple.ple(32, TASKS), "vcr")
    names = [press(Keys.ARROW_DOWN).get_attribute("data-name") for _ in range(3)]
    assert names == ["tower/vcr", "level2/vcr", "level2/vcr/experts"]
    other = press(Keys.ARROW_LEFT)
    assert other.get_attribute("data-name") == "level2/vtr/experts"
    assert other.get_attribute("aria-label").endswith("gradient of the vcr loss is exactly 0")
    assert "level2/vtr/experts" in browser.find_element(By.ID, "about").text
    press(Keys.ESCAPE)
    assert lit(browser) == set()
    assert not press(Keys.TAB).get_attribute("data-name")  # the drawing is one stop


@pytest.mark.parametrize("name", npple.ARCHITECTURES)
def test_no_text_of_a_drawing_overlaps_another_or_leaves_its_box(browser, name):
    Select(browser.find_element(By.ID, "model")).select_by_value(name)
    shown = browser.execute_script("""
        return [...document.querySelectorAll('#drawing text')].map(text => {
            const { left, top, right, bottom } = text.getBoundingClientRect();
            const box = [...text.parentElement.querySelectorAll('rect')].at(-1)
                ?.getBoundingClientRect();
            return [text.textContent, left, top, right, bottom,
                !text.matches('.title, .detail') || left >= box.left && right <= box.right];
        }).filter(([, left, , right]) => right > left)""")
    assert len(shown) > 10
    for text, *_, inside in shown:
        assert inside, text
    for (a, *first, _), (b, *second, _) in combinations(shown, 2):
        apart = (first[2] <= second[0] or second[2] <= first[0]
                 or first[3] <= second[1] + 2 or second[3] <= first[1] + 2)
        assert apart, f"{a} and {b}"


@pytest.mark.parametrize("screen", ["desktop", "phone"])
def test_the_page_fits_the_screen_and_can_be_read(screen, request):
    browser = request.getfixturevalue(screen)
    browser.refresh()
    wide, inner = browser.execute_script(
        "return [document.documentElement.scrollWidth, innerWidth]")
    assert wide <= inner
    sizes = browser.execute_script("""
        const scale = document.getElementById('drawing').getScreenCTM().a;
        return ['.title', '.detail', '.shape'].map(name => scale
            * parseFloat(getComputedStyle(document.querySelector('#drawing ' + name)).fontSize))""")
    assert min(sizes) > 8.5
    node(browser, "loss/vtr").click()
    assert lit(browser) == reached(npple.ple(32, TASKS), "vtr")


def test_on_a_phone_nothing_covers_the_drawing_and_nothing_is_said_of_keys(phone):
    phone.refresh()
    node(phone, "loss/vtr").click()
    lowest, highest = phone.execute_script("""
        return [document.getElementById('frame').getBoundingClientRect().bottom,
            document.getElementById('about').getBoundingClientRect().top]""")
    assert lowest < highest
    assert "Tab" not in phone.find_element(By.TAG_NAME, "body").text


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_light_and_dark(browser, scheme):
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {
        "features": [{"name": "prefers-color-scheme", "value": scheme}]})
    node(browser, "loss/vtr").click()
    pairs = browser.execute_script("""
        const color = (element, name) => getComputedStyle(element)[name];
        const own = [...document.querySelectorAll('.node.lit')].map(node => [
            color(node.querySelector('text'), 'fill'), color(node.querySelector('rect'), 'fill')]);
        const cell = document.querySelector('td.now');
        return [...own, [color(document.body, 'color'), color(document.body, 'backgroundColor')],
            [color(cell, 'color'), color(cell, 'backgroundColor')]]""")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert (luminance(pairs[-2][1]) > 0.5) == (scheme == "light")
    for ink, ground in pairs:
        dark, light = sorted((luminance(ink), luminance(ground)))
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (ink, ground)  # WCAG 2, level AA


def luminance(color):
    """Of "rgb(r, g, b)", as WCAG 2 defines it."""
    channels = [int(part) / 255 for part in color.strip("rgba()").split(",")[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_the_page_loads_nothing_and_complains_of_nothing(browser):
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert browser.get_log("browser") == []
