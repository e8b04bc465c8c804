// A small part of Markdown, made of elements one by one: paragraphs, headings, lists, code, bold,
// italics, and links to http and https. Whatever else looks like markup stays the text it is.

import { h } from "./dom.js";

const FENCE = /^\s{0,3}(`{3,}|~{3,})\s*([\w+#.-]*)/;
const ITEM = /^\s{0,3}(?:([-*+])|(\d{1,9})[.)])\s+(.*)$/;
const HEADING = /^\s{0,3}#{1,6}\s+(.*?)\s*#*$/;
const INLINE =
  /(`{1,3})(.{1,500}?)\1|\*\*(\S(?:.{0,500}?\S)?)\*\*|(?<![\w*])\*(\S(?:[^*]{0,500}\S)?)\*(?![\w*])|\[([^\]\n]{1,500})\]\((https?:\/\/[^\s)]{1,2000})\)|(https?:\/\/[^\s<>"')\]]{0,2000}[^\s<>"')\].,;:!?])/gs;
// Beyond this a paragraph is no prose, and looking for marks in it would take long.
const LONGEST = 10_000;

/** Return *text* as elements. */
export function markdown(text) {
  const lines = text.split("\n");
  const blocks = [];
  let at = 0;
  while (at < lines.length) {
    const [block, next] = fence(lines, at) ?? heading(lines, at) ?? list(lines, at) ?? paragraph(lines, at);
    if (block) blocks.push(block);
    at = next;
  }
  return blocks;
}

function fence(lines, at) {
  const begin = FENCE.exec(lines[at]);
  if (!begin) return null;
  let end = at + 1;
  while (end < lines.length && !lines[end].trimStart().startsWith(begin[1])) end += 1;
  const code = h("code", {}, lines.slice(at + 1, end).join("\n"));
  // One that runs over its width is scrolled, also by keys.
  const pre = h("pre", { tabindex: "0", role: "group", "aria-label": `Code ${begin[2]}`.trim() }, code);
  return [pre, end + 1];
}

function heading(lines, at) {
  const found = HEADING.exec(lines[at]);
  return found && [h("p", { class: "heading" }, ...inline(found[1])), at + 1];
}

function list(lines, at) {
  const first = ITEM.exec(lines[at]);
  if (!first) return null;
  const isOrdered = first[2] !== undefined;
  const element = isOrdered ? h("ol", { start: first[2] }) : h("ul");
  while (at < lines.length) {
    const item = ITEM.exec(lines[at]);
    if (!item || (item[2] !== undefined) !== isOrdered) break;
    const text = [item[3]];
    at += 1;
    while (at < lines.length && lines[at].trim() && !ITEM.test(lines[at]) && !FENCE.test(lines[at])) {
      text.push(lines[at].trim());
      at += 1;
    }
    element.append(h("li", {}, ...inline(text.join("\n"))));
    while (at + 1 < lines.length && !lines[at].trim() && ITEM.test(lines[at + 1])) at += 1;
  }
  return [element, at];
}

function paragraph(lines, at) {
  const text = [];
  while (at < lines.length && lines[at].trim()) {
    if (text.length && (FENCE.test(lines[at]) || HEADING.test(lines[at]) || ITEM.test(lines[at]))) break;
    text.push(lines[at]);
    at += 1;
  }
  if (!text.length) return [null, at + 1];
  return [h("p", { dir: "auto" }, ...inline(text.join("\n"))), at];
}

function inline(text) {
  if (text.length > LONGEST) return [text];
  const nodes = [];
  let at = 0;
  for (const found of text.matchAll(INLINE)) {
    if (found.index > at) nodes.push(text.slice(at, found.index));
    const [whole, , code, bold, italic, label, target, bare] = found;
    if (code !== undefined) nodes.push(h("code", {}, code));
    else if (bold !== undefined) nodes.push(h("strong", {}, ...inline(bold)));
    else if (italic !== undefined) nodes.push(h("em", {}, ...inline(italic)));
    else nodes.push(link(target ?? bare, label));
    at = found.index + whole.length;
  }
  if (at < text.length) nodes.push(text.slice(at));
  return nodes;
}

function link(target, label) {
  const element = h("a", { href: target, target: "_blank", rel: "noopener noreferrer" }, label ?? target);
  if (label === undefined || label === target) return element;
  // Where a link leads is told, not only what it says of itself.
  const host = /^https?:\/\/([^/?#]*)/.exec(target)[1];
  return h("span", {}, element, h("span", { class: "host" }, ` (${host})`));
}
