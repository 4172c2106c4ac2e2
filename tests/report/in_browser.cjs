// Opens pages in Chromium and prints one JSON line for each page, width and colour scheme.
// Arguments: the executable of Chromium, a folder for screenshots, and the pages.
const fs = require("node:fs");
const path = require("node:path");
const puppeteer = require("puppeteer-core");

const axe = fs.readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const [executablePath, folder, ...pages] = process.argv.slice(2);
const everyChartIsDrawn = () =>
  [...document.querySelectorAll("[data-chart]")].every((element) => element.querySelector("svg"));

async function visit(browser, file, width, scheme) {
  const seen = { page: path.basename(file), width, scheme, console: [], requests: [] };
  const page = await browser.newPage();
  page.on("console", (message) => seen.console.push(message.text()));
  page.on("pageerror", (error) => seen.console.push(error.message));
  page.on("request", (request) => seen.requests.push(request.url().split(":")[0]));
  // West of Greenwich, a day that is taken as local time would be drawn as the day before.
  await page.emulateTimezone("America/Los_Angeles");
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
  await page.setViewport({ width, height: 900 });
  await page.goto(`file://${file}`, { timeout: 0 });
  const frame = page.frames().at(-1); // the report itself, or the frame of a notebook
  await frame.waitForFunction(everyChartIsDrawn, { timeout: 0 });
  seen.charts = await frame.$$eval("[data-chart]", (elements) => elements.map((e) => e.querySelectorAll("path, rect").length));
  seen.labels = await frame.$$eval("[data-chart$=events-chart]", (elements) => elements.map((e) => e.querySelector("svg").textContent));
  seen.overflow = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
  await page.screenshot({ path: path.join(folder, `${path.parse(file).name}-${width}-${scheme}.png`), fullPage: true });
  await page.keyboard.press("Tab");
  seen.focus = await frame.evaluate(() => document.activeElement.textContent);
  await frame.$$eval("details", (elements) => elements.forEach((element) => { element.open = true; }));
  // Puppeteer's own world is not subject to the page's content security policy.
  await frame.isolatedRealm().evaluate(axe);
  const result = await frame.isolatedRealm().evaluate(() => axe.run());
  seen.violations = result.violations.map((rule) => ({ impact: rule.impact, rule: rule.id, html: rule.nodes[0].html }));
  seen.pdf = (await page.pdf({ format: "A4", printBackground: true, timeout: 0 })).length;
  await page.close();
  return seen;
}

(async () => {
  const options = { executablePath, args: ["--no-sandbox"], protocolTimeout: 0, timeout: 0 };
  const browser = await puppeteer.launch(options);
  for (const file of pages)
    for (const width of [390, 1440])
      for (const scheme of ["light", "dark"])
        console.log(JSON.stringify(await visit(browser, file, width, scheme)));
  await browser.close();
})();
