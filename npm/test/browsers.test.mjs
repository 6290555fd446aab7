// In real browsers, on pages of another origin than the gateway's: the client, useRun with React 18 and 19, and a chat.
import assert from "node:assert/strict";
import { mkdir, writeFile } from "node:fs/promises";
import test, { after, before } from "node:test";
import { url } from "./gateway.mjs";
import { browsers, bundled, network, open, served } from "./pages.mjs";

const gateway = new URL(url).host;
const chat = new URL("../../examples/chat/", import.meta.url);
const pictures = process.env.PICTURES;
const HTML = '<!doctype html><div id="root"></div><script type="module" src="page.js"></script>';
const POLLING = { timeout: 20_000, polling: 50 };
const INVOICE = "Open the invoice under Billing and choose Dispute. We correct it within two working days and send a new one.";
let files;
let site;

before(async () => {
  files = {
    "/19/": HTML,
    "/19/page.js": await bundled("npm/test/page.jsx"),
    "/18/": HTML,
    "/18/page.js": await bundled("npm/test/page.jsx", "react-18"),
    "/chat/": new URL("www/index.html", chat),
    "/chat/chat.css": new URL("www/chat.css", chat),
    "/chat/main.js": await bundled("examples/chat/main.jsx"),
    "/blank/": "<!doctype html>",
    "/blank/checks.mjs": new URL("../../tests/browser/client.mjs", import.meta.url),
  };
  site = await served(files);
});
after(() => site.close());

for (const [name, executable] of browsers) {
  const skip = executable ? false : `${name} cannot be had on this machine`;
  let browser;
  const page = async (address) => {
    browser ??= await open(name, executable);
    const opened = await browser.newPage();
    await opened.setViewport({ width: 760, height: 820 });
    await opened.goto(`${site.origin}${address}`);
    return opened;
  };
  const shows = (opened, selector, wanted) =>
    opened.waitForFunction((at, text) => document.querySelector(at)?.textContent.match(text), POLLING, selector, wanted);
  const picture = async (opened, what) => {
    if (!pictures) return;
    await mkdir(pictures, { recursive: true });
    await writeFile(`${pictures}/chat-${name}-${what}.png`, await opened.screenshot());
  };
  const said = (opened) =>
    opened.$$eval(".assistant", (all) => all.map((each) => [...each.querySelectorAll(":scope > span")].map((span) => span.textContent).join("")));
  after(() => browser?.close());

  test(`${name}: the client, loaded from the gateway, keeps what it promises`, { skip }, async () => {
    const opened = await page("/blank/");
    const wrong = await opened.evaluate(async (host) => {
      const runwire = await import(`http://${host}/runwire.js`);
      const { checks } = await import("./checks.mjs");
      const all = Object.entries(checks(runwire, `ws://${host}/v1/stream`));
      const said = await Promise.all(all.map(([sentence, check]) => check().then(() => "", (error) => `${sentence}: ${error}`)));
      return said.filter(Boolean);
    }, gateway);
    assert.deepEqual(wrong, []);
    await opened.close();
  });

  for (const react of ["18", "19"]) {
    test(`${name}, React ${react}: useRun shows a run, its tools, and its end`, { skip }, async () => {
      const opened = await page(`/${react}/?gateway=${gateway}`);
      await shows(opened, "#state", "^idle$");
      assert.ok((await opened.$eval("body", (body) => body.dataset.react)).startsWith(react));
      await opened.evaluate(() => window.run.start({ agent: "triage", input: "My invoice is wrong" }));
      await shows(opened, "#state", "^completed$");
      const shown = (id) => opened.$eval(id, (each) => each.textContent);
      assert.equal(await shown("#text"), INVOICE);
      assert.equal(await shown("#tools"), "search true,classify true,search true");
      assert.match(await shown("#reasoning"), /^Let me see/);
      const numbers = (await shown("#seqs")).split(",").map(Number);
      assert.deepEqual(numbers, numbers.map((_, number) => number + 1));
      await opened.close();
    });

    test(`${name}, React ${react}: useRun asks, answers, cancels, and is left and joined`, { skip }, async () => {
      const opened = await page(`/${react}/?gateway=${gateway}`);
      await opened.evaluate(() => window.run.start({ agent: "orders", resumeWindow: 60 }));
      await shows(opened, "#questions", "Which order");
      await opened.evaluate(() => window.run.answer(window.run.questions[0].requestId, { content: { order: "17", many: 2 } }));
      await shows(opened, "#state", "^completed$");
      assert.equal(await opened.$eval("#questions", (each) => each.textContent), "");
      await opened.evaluate(() => window.run.start({ agent: "ticker", resumeWindow: 60, parameters: { ticks: 60 } }));
      await shows(opened, "#text", "5");
      const runId = await opened.evaluate(() => (window.mount(false), window.run.runId));
      await shows(opened, "#gone", "gone");
      await opened.evaluate(() => window.mount(true));
      await shows(opened, "#state", "^idle$");
      await opened.evaluate((id) => window.run.join({ runId: id }), runId);
      await shows(opened, "#text", "^0123456789");
      await opened.evaluate(() => window.run.cancel());
      await shows(opened, "#state", "^cancelled$");
      await opened.close();
    });
  }

  test(`${name}: a flood of events is not a flood of renderings`, { skip }, async () => {
    const opened = await page(`/19/?gateway=${gateway}`);
    await opened.evaluate(() => window.run.start({ agent: "counter", parameters: { times: 5000 } }));
    await shows(opened, "#state", "^completed$");
    assert.equal(await opened.$eval("#seqs", (each) => each.textContent.split(",").length), 5002);
    const renderings = await opened.evaluate(() => window.renderings);
    assert.ok(renderings < 500, `${renderings} renderings`);
    await opened.close();
  });

  test(`${name}: the chat streams, calls tools, asks, survives a cut and a reload, and stops`, { skip }, async (t) => {
    const between = await network(gateway);
    t.after(() => between.close());
    const slow = encodeURIComponent(JSON.stringify({ pace: 0.15 }));
    const opened = await page(`/chat/?gateway=${between.address}&parameters=${slow}`);
    const ask = async (text) => {
      await opened.waitForSelector("input:not(:disabled)");
      await opened.type("input", text);
      await opened.keyboard.press("Enter");
    };
    await ask("My invoice is wrong");
    await shows(opened, ".assistant", "invoice");
    await picture(opened, "streaming");
    between.cut();
    await shows(opened, ".status", "reconnecting");
    await shows(opened, ".status", "streaming");
    await opened.reload();
    await opened.waitForFunction( // it says that it is ready before it looks for its run, too
      (wanted) => [...document.querySelectorAll(".assistant > span")].map((span) => span.textContent).join("") === wanted,
      POLLING,
      INVOICE,
    );
    await shows(opened, ".status", "ready");
    assert.deepEqual(await said(opened), [INVOICE]);
    await picture(opened, "tools");

    await ask("I want my money back");
    await shows(opened, ".asks", "May it be called");
    await picture(opened, "approval");
    await opened.reload();
    await shows(opened, ".asks", "May it be called");
    await (await opened.$(".asks button")).click();
    await shows(opened, ".assistant:last-child", "on their way back to you");
    await shows(opened, ".status", "ready");
    assert.equal((await said(opened)).length, 2);
    await picture(opened, "approved");

    await ask("My invoice is wrong");
    await opened.waitForFunction(() => document.querySelectorAll(".assistant").length === 3, POLLING);
    await (await opened.waitForSelector("form button[type=button]")).click();
    await shows(opened, ".status", "ready");
    await opened.close();
  });
}
