// Runs the page's script over a description (argv: script, description) with the few parts of the DOM that it uses, and prints
// what a reader would see: {"text": [...], "ids": [...], "tags": [...], "links": [...]}.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

class Text {
  constructor(text) {
    this.textContent = String(text);
  }
}

class Element {
  constructor(tag) {
    this.tag = tag;
    this.children = [];
    this.attributes = {};
  }
  setAttribute(name, value) {
    this.attributes[name] = String(value);
  }
  append(...parts) {
    this.children.push(...parts.map((part) => (part instanceof Element || part instanceof Text ? part : new Text(part))));
  }
  replaceChildren(...parts) {
    this.children = [];
    this.append(...parts);
  }
  set textContent(text) {
    this.children = [new Text(text)];
  }
  get textContent() {
    return this.children.map((child) => child.textContent).join("");
  }
  scrollIntoView() {}
}

const parts = { main: new Element("main"), "#contents": new Element("ul"), "#summary": new Element("p"), "#state": new Element("p") };
globalThis.document = {
  createElement: (tag) => new Element(tag),
  createTextNode: (text) => new Text(text),
  querySelector: (selector) => parts[selector] ?? null,
  getElementById: () => null,
};
globalThis.location = { hash: "" };
const description = readFileSync(process.argv[3], "utf-8");
globalThis.fetch = async () => ({ ok: description !== "", status: 503, json: async () => JSON.parse(description) });

await import(pathToFileURL(process.argv[2]).href);
await new Promise((resolve) => setTimeout(resolve, 0));

const all = [];
(function walk(element) {
  all.push(element);
  for (const child of element.children ?? []) walk(child);
})({ children: Object.values(parts) });
const elements = all.filter((one) => one instanceof Element);
console.log(JSON.stringify({
  text: all.filter((one) => one instanceof Text).map((one) => one.textContent),
  ids: elements.map((one) => one.attributes.id).filter(Boolean),
  tags: [...new Set(elements.map((one) => one.tag))],
  links: elements.filter((one) => one.tag === "a").map((one) => one.attributes.href),
}));
