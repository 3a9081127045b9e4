"""How long docs/train.html takes for 300 steps on opposite tasks, in headless Chromium.

Needs the extra `browser`, and Chromium with its driver (Debian: chromium, chromium-driver).
"""

import shutil
from pathlib import Path

from selenium import webdriver

PAGE = Path(__file__).parents[2] / "docs" / "train.html"
STEPS = """
    by('correlation').value = -1;
    begin();
    return state.learners.map((learning) => {
        const started = performance.now();
        for (let i = 0; i < 300; i++) learn(learning);
        const { A, B } = learning.history;
        return [learning.name, performance.now() - started, A[0] + B[0], A.at(-1) + B.at(-1)];
    });"""

options = webdriver.ChromeOptions()
options.binary_location = shutil.which("chromium") or shutil.which("chromium-browser")
for flag in ("--headless", "--no-sandbox", "--disable-gpu"):
    options.add_argument(flag)
browser = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
browser.get(PAGE.as_uri())
for name, milliseconds, first, last in browser.execute_script(STEPS):
    print(f"{name}: {milliseconds / 1000:.2f} s, loss from {first:.3f} to {last:.4f}")
browser.quit()
