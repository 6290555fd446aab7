// The console in real browsers: by keyboard alone, for everybody, with what hostile agents say, and with a flood.
import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import test, { after } from "node:test";
import { browsers, open } from "../../npm/test/pages.mjs";

const require = createRequire(new URL("../../npm/package.json", import.meta.url));
const AXE = await readFile(require.resolve("axe-core/axe.min.js"), "utf8");
const address = process.env.CONSOLE;
const WIDE = { width: 1360, height: 860 };
const NARROW = { width: 390, height: 800 };
const POLLING = { timeout: 20_000, polling: 50 };
const LONGEST_TASK = 100; // milliseconds
const EVENTS = 100_000;
let users = 0;
const CHANGING = ".id, .usage, .returned, .time, .rows .track, .axis, #engine, .about"; // of what each run has its own
const PICTURES = new URL("pictures/", import.meta.url);
const TOLERANCE = 0.01; // share of pixels that may be another colour

/** Compares a page with the picture that was taken of it before; UPDATE=1 takes it anew. */
async function looksAsBefore(page, what) {
  const now = await page.screenshot({ encoding: "base64", fullPage: true }); // wherever it is scrolled to
  const file = new URL(`${what}.png`, PICTURES);
  if (process.env.UPDATE) return writeFile(file, Buffer.from(now, "base64"));
  const before = (await readFile(file)).toString("base64");
  const differs = await page.evaluate(async (...pictures) => {
    const [one, other] = await Promise.all(
      pictures.map(async (picture) => {
        const image = await createImageBitmap(new Blob([Uint8Array.from(atob(picture), (letter) => letter.charCodeAt(0))]));
        const pen = new OffscreenCanvas(image.width, image.height).getContext("2d");
        pen.drawImage(image, 0, 0);
        return pen.getImageData(0, 0, image.width, image.height);
      }),
    );
    if (one.width !== other.width || one.height !== other.height) return 1;
    let wrong = 0;
    for (let at = 0; at < one.data.length; at += 4) {
      if ([0, 1, 2].some((colour) => Math.abs(one.data[at + colour] - other.data[at + colour]) > 40)) wrong++;
    }
    return wrong / (one.data.length / 4);
  }, before, now);
  if (differs > TOLERANCE) await writeFile(new URL(`../../build/${what}.png`, import.meta.url), Buffer.from(now, "base64"));
  assert.ok(differs <= TOLERANCE, `${(100 * differs).toFixed(2)} % of ${what} is otherwise: build/${what}.png`);
}

for (const [name, executable] of browsers) {
  const skip = executable ? false : `${name} cannot be had on this machine`;
  for (const scheme of ["light", "dark"]) {
    let browser;
    after(() => browser?.close());

    /** Opens the console, whose own errors fail the test. */
    const visit = async (size = WIDE, user = `user-${process.pid}-${++users}`) => {
      browser ??= await open(name, executable, { scheme });
      const page = await (await browser.createBrowserContext()).newPage(); // with a storage of its own
      page.wrong = [];
      page.on("pageerror", (error) => page.wrong.push(String(error)));
      if (name === "chrome") await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
      await page.setViewport(size);
      await page.goto(address);
      await page.waitForFunction(() => document.querySelector("#engine").className === "up", POLLING);
      await page.focus("#token");
      await page.keyboard.type(user);
      await page.keyboard.press("Tab");
      await page.waitForSelector(`#user[data-name="${user}"]`);
      return page;
    };
    const leave = async (page) => {
      assert.deepEqual(page.wrong, []);
      await page.browserContext().close();
    };
    const ask = async (page, agent, question, parameters) => {
      await page.select("#agent", agent);
      await page.evaluate((sent) => {
        document.querySelector("#more").open = Boolean(sent);
        if (!sent) return;
        if (!document.querySelector("#parameters").offsetParent) document.querySelector("#along > button").click();
        document.querySelector("#parameters").value = sent;
      }, parameters ?? "");
      await page.focus("#input");
      await page.keyboard.type(question);
      await page.keyboard.press("Enter");
    };
    const state = (page, wanted) =>
      page.waitForFunction((state) => [...document.querySelectorAll(".turn")].at(-1)?.dataset.state === state, POLLING, wanted);
    const findings = async (page, what) => {
      await page.evaluate(AXE);
      const { violations } = await page.evaluate(() => axe.run({ runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] }));
      const said = violations.map(({ id, nodes }) => `${what}: ${id}: ${nodes.map(({ html, failureSummary }) => `${html.slice(0, 120)} ${failureSummary.split("\n")[1]}`).join("; ")}`);
      assert.deepEqual(said, []);
    };
    const fits = async (page, what) => {
      const [width, inside] = await page.evaluate(() => [innerWidth, document.documentElement.scrollWidth]);
      assert.ok(inside <= width, `${what} is ${inside - width} pixels wider than the screen`);
    };

    for (const [size, words] of [[WIDE, "wide"], [NARROW, "narrow"]]) {
      test(`${name}, ${scheme}, ${words}: nothing keeps anybody out`, { skip }, async () => {
        const page = await visit(size);
        assert.equal(await page.evaluate((s) => matchMedia(`(prefers-color-scheme: ${s})`).matches, scheme), true);
        await findings(page, "before anything was asked");
        await ask(page, "triage", "My invoice shows a wrong amount", '{"pace": 0.01}');
        await state(page, "done");
        await page.click(".turn .look");
        await findings(page, "an answer, and its timeline");
        await ask(page, "rogue", "fail");
        await state(page, "failed");
        await page.click(".turn:last-of-type .look");
        await findings(page, "a failure");
        await ask(page, "orders", "Where is it?");
        await page.waitForSelector(".asked input");
        await findings(page, "a question");
        await page.click("#tab-network");
        await page.waitForSelector("#network .frames button");
        await page.click("#network .frames button");
        await findings(page, "the network");
        await page.click("#tab-call");
        await findings(page, "how to call it");
        await page.select("#agent", "booking");
        await page.evaluate(() => (document.querySelector("#more").open = true));
        await findings(page, "a form of parameters");
        await fits(page, "a conversation");
        await page.goto(`${address}/#side`);
        await page.click(".scenes button");
        await page.waitForFunction(() => document.querySelectorAll(".worst").length === 6, POLLING);
        await findings(page, "side by side");
        await fits(page, "side by side");
        await page.click("#side .stop");
        await leave(page);
      });
    }

    for (const [size, words] of [[WIDE, "wide"], [NARROW, "narrow"]]) {
      test(`${name}, ${scheme}, ${words}: it looks as it did`, { skip }, async () => {
        const page = await visit(size, "ann"); // who has no other runs
        await page.evaluate((masks) => {
          const sheet = new CSSStyleSheet();
          sheet.replaceSync(`${masks} { visibility: hidden !important } * { scrollbar-width: none; caret-color: transparent }`);
          document.adoptedStyleSheets = [sheet];
        }, CHANGING);
        await ask(page, "triage", "How do I feed the office plants?", '{"pace": 0}');
        await state(page, "done");
        if (size === WIDE) await page.click(".turn .look"); // elsewhere it would be scrolled to
        await page.evaluate(() => document.activeElement.blur());
        await looksAsBefore(page, `${name}-${scheme}-${words}`);
        await leave(page);
      });
    }

    if (scheme === "dark") continue;

    const focusedOn = (page) =>
      page.evaluate(() => {
        const { id, className, textContent, tagName } = document.activeElement;
        return `${tagName} ${id} ${className} ${textContent.slice(0, 30)}`;
      });

    test(`${name}: every control is reached by keyboard alone`, { skip }, async () => {
      const page = await visit();
      await ask(page, "triage", "My invoice shows a wrong amount", '{"pace": 0}');
      await state(page, "done");
      const reached = new Set();
      await page.focus("nav a");
      for (let turns = 0; turns < 120; turns++) {
        reached.add(await focusedOn(page));
        await page.keyboard.press("Tab");
      }
      const missed = await page.evaluate((seen) => {
        const all = [...document.querySelectorAll("a[href], button, input, select, textarea, summary, [tabindex]")];
        const there = all.filter((each) => each.checkVisibility() && !each.disabled && each.tabIndex >= 0);
        return there
          .map(({ id, className, textContent, tagName }) => `${tagName} ${id} ${className} ${textContent.slice(0, 30)}`)
          .filter((each) => !seen.includes(each));
      }, [...reached]);
      assert.deepEqual(missed, []);
      await leave(page);
    });

    test(`${name}: what there is to do is done by keyboard alone`, { skip }, async () => {
      const page = await visit();
      const focused = () => focusedOn(page);
      await page.focus("#input");
      await page.keyboard.type("My invoice shows a wrong amount");
      await page.keyboard.press("Enter");
      await page.waitForSelector(".turn .cancel:not([hidden])");
      await page.focus(".turn .cancel");
      await page.keyboard.press("Enter");
      await state(page, "cancelled");
      await page.focus("#timeline .rows");
      await page.keyboard.press("ArrowDown");
      await page.keyboard.press("ArrowDown");
      const chosen = () => page.$eval(".about h2", (head) => head.textContent);
      assert.match(await chosen(), /search/);
      await page.keyboard.press("ArrowUp");
      await page.keyboard.press("ArrowLeft");
      assert.equal(await page.$eval("#timeline .rows", (rows) => rows.ariaRowCount), "1");
      await page.keyboard.press("ArrowRight");
      const axis = () => page.$eval("#timeline .axis", (each) => each.textContent);
      const whole = await axis();
      await page.keyboard.press("+");
      assert.notEqual(await axis(), whole);
      await page.keyboard.press("0");
      assert.equal(await axis(), whole);
      await page.keyboard.press("/");
      await page.keyboard.type("classify");
      assert.match(await chosen(), /classify/);
      await page.focus("#tab-timeline");
      await page.keyboard.press("ArrowRight");
      assert.match(await focused(), /tab-network/);
      await page.keyboard.press("ArrowRight");
      await page.waitForFunction(() => document.querySelector("#call code").textContent.includes("triage"), POLLING);
      await page.focus('nav a[href="#side"]');
      await page.keyboard.press("Enter");
      await page.waitForSelector(".scenes button", { visible: true });
      const isThere = () => page.evaluate(() => document.activeElement.closest(".scenes") !== null);
      for (let turns = 0; turns < 10 && !(await isThere()); turns++) await page.keyboard.press("Tab");
      await page.keyboard.press("Enter");
      await page.waitForFunction(() => /largest gap \d/.test(document.querySelectorAll(".worst")[5]?.textContent), POLLING);
      await page.focus("#side .stop");
      await page.keyboard.press("Enter");
      await page.waitForFunction(() => [...document.querySelectorAll("article.lane")].every(({ dataset }) => dataset.state === "cancelled"), POLLING);
      await leave(page);
    });

    test(`${name}: what an agent says is text, whatever it is`, { skip }, async () => {
      const page = await visit();
      await page.evaluate(() => (window.alert = () => (window.fooled = true)));
      for (const what of ["markup", "controls", "long", "emoji", "right to left"]) {
        await ask(page, "nasty", what);
        await state(page, "done");
        await page.click(".turn:last-of-type .look");
        const { fooled, strange, shown, width } = await page.evaluate(() => ({
          fooled: window.fooled,
          strange: document.querySelectorAll(".turn img, .turn script, .turn a, .about img, .about a, .turn iframe").length,
          shown: [...document.querySelectorAll(".turn .answer")].at(-1).textContent,
          width: document.documentElement.scrollWidth - innerWidth,
        }));
        assert.deepEqual({ fooled, strange, width: Math.max(width, 0) }, { fooled: undefined, strange: 0, width: 0 }, what);
        if (what === "markup") assert.ok(shown.includes("<img src=x onerror=alert(1)>"), shown.slice(0, 200));
        if (what === "emoji") assert.ok(shown.includes("👩‍👩‍👧‍👦"));
        if (what === "long") assert.ok(shown.length >= 20_000);
      }
      await page.keyboard.press("Escape");
      await leave(page);
    });

    test(`${name}: ${EVENTS} events, and the page stays fluid`, { skip }, async () => {
      // A page that is slow is so each time; one whose processor another process had for a while, once.
      for (let tries = 1; ; tries++) {
        const worst = await flooded();
        if (worst < LONGEST_TASK) return;
        assert.ok(tries < 3, `the longest task took ${worst} ms, three times`);
      }
    });

    /** Shows a flood, and returns how long the page's longest task was. */
    const flooded = async () => {
      const page = await visit();
      await page.evaluate(() => {
        window.tasks = [];
        if (PerformanceObserver.supportedEntryTypes.includes("longtask")) {
          new PerformanceObserver((list) => window.tasks.push(...list.getEntries().map(({ duration }) => duration))).observe({ type: "longtask" });
        }
        window.longest = 0;
        const { port1, port2 } = new MessageChannel();
        let last = performance.now();
        port1.onmessage = () => {
          const now = performance.now();
          window.longest = Math.max(window.longest, now - last);
          last = now;
          setTimeout(() => ((last = performance.now()), port2.postMessage(0)), 0);
        };
        port2.postMessage(0);
      });
      await ask(page, "try_flooding", "flood", `{"words": ${EVENTS - 2000}}`);
      await page.waitForFunction(() => [...document.querySelectorAll(".turn")].at(-1)?.dataset.state === "done", { timeout: 100_000, polling: 200 });
      await page.focus("#timeline .rows");
      for (const key of ["End", "Home", "PageDown", "+", "+", "0", "ArrowLeft", "ArrowRight"]) await page.keyboard.press(key);
      await page.keyboard.press("/");
      await page.keyboard.type("97000");
      const rows = Number(await page.$eval("#timeline .rows", (each) => each.ariaRowCount));
      const drawn = await page.$$eval("#timeline .row", (all) => all.length);
      const { longest, tasks, heap } = await page.evaluate(() => ({
        longest: window.longest,
        tasks: window.tasks,
        heap: performance.memory?.usedJSHeapSize,
      }));
      const events = rows - 1;
      const mega = heap ? `, heap ${(heap / 1e6).toFixed(0)} MB` : "";
      const worst = Math.max(longest, ...tasks);
      console.log(`${name}: ${EVENTS} events, ${events} of them tools; ${drawn} rows drawn; longest task ${worst.toFixed(0)} ms${mega}`);
      assert.ok(drawn < 100, `${drawn} rows are drawn`);
      if (heap) assert.ok(heap < 150e6, `the heap has ${heap} bytes`);
      await leave(page);
      return worst;
    };
  }
}
