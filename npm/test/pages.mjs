// Pages, bundled and served as an application of another origin, and the browsers that show them.
import { build } from "esbuild";
import { createServer } from "node:http";
import { connect, createServer as createProxy } from "node:net";
import { readFile } from "node:fs/promises";
import { existsSync } from "node:fs";
import path from "node:path";
import puppeteer from "puppeteer-core";

const here = import.meta.dirname ?? path.dirname(new URL(import.meta.url).pathname);
const root = path.resolve(here, "../..");
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript", ".css": "text/css" };
const PLACES = {
  firefox: ["/usr/bin/firefox", "/usr/bin/firefox-esr"],
  chrome: ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"],
};

/** The browsers of this machine, by name. */
export const browsers = Object.entries(PLACES).map(([name, places]) => [name, places.find(existsSync)]);

export async function open(browser, executablePath, { scheme = "light" } = {}) {
  const args = browser === "chrome" ? ["--no-sandbox", "--disable-gpu"] : [];
  const extraPrefsFirefox = { "layout.css.prefers-color-scheme.content-override": scheme === "dark" ? 0 : 1 };
  return puppeteer.launch({ browser, executablePath, headless: true, args, extraPrefsFirefox });
}

/** Bundles a page; `react` names a folder that has another React than ours. */
export async function bundled(file, react) {
  const from = react && path.join(here, react, "node_modules");
  const alias = from ? { react: path.join(from, "react"), "react-dom": path.join(from, "react-dom") } : {};
  const { outputFiles } = await build({
    entryPoints: [path.join(root, file)],
    bundle: true,
    write: false,
    format: "esm",
    jsx: "automatic",
    alias: { ...alias, "runwire/react": path.join(here, "../dist/react.js"), "runwire/ai-sdk": path.join(here, "../dist/ai-sdk.js") },
    nodePaths: [path.join(here, "../node_modules")],
    define: { "process.env.NODE_ENV": '"development"' },
  });
  return outputFiles[0].text;
}

/** Serves files by their addresses: text, or what is to be read. */
export async function served(files) {
  const server = createServer(async ({ url }, response) => {
    const name = url.split("?")[0];
    const found = files[name];
    if (found === undefined) return response.writeHead(404).end();
    response.setHeader("Content-Type", TYPES[path.extname(name)] ?? "text/html");
    response.end(found instanceof URL ? await readFile(found) : found);
  });
  await new Promise((resolve) => server.listen(Number(process.env.PAGE_PORT), "127.0.0.1", resolve));
  return { origin: `http://127.0.0.1:${process.env.PAGE_PORT}`, close: () => server.closeAllConnections() ?? server.close() };
}

/** Stands between a page and its gateway, and cuts. */
export async function network(target) {
  const [host, port] = target.split(":");
  const pairs = new Set();
  const server = createProxy((near) => {
    const far = connect(Number(port), host);
    const pair = [near, far];
    pairs.add(pair);
    for (const [one, other] of [pair, [...pair].reverse()]) {
      one.pipe(other);
      one.on("error", () => {});
      one.on("close", () => (other.destroy(), pairs.delete(pair)));
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    address: `127.0.0.1:${server.address().port}`,
    cut: () => pairs.forEach((pair) => pair.forEach((each) => each.resetAndDestroy())),
    close: () => (pairs.forEach((pair) => pair.forEach((each) => each.destroy())), server.close()),
  };
}
