// What is said in a conversation, on the screen.

import { $, h, say } from "./dom.js";
import { markdown } from "./markdown.js";

const NEAR_PX = 80;

/** The messages of one conversation; stored ones first, then the turns that were begun here. */
export class Transcript {
  constructor(agent) {
    this.agent = agent;
    this.#scroll.addEventListener("scroll", () => this.#watch(), { passive: true });
    $("to-end").addEventListener("click", () => this.toEnd());
  }

  #root = $("transcript");
  #scroll = $("scroll");
  #stored = h("div", { class: "transcript" });
  #follows = true;

  /** Show *messages*, oldest first, and nothing else. */
  show(messages) {
    this.#stored = h("div", { class: "transcript" }, ...blocks(messages));
    this.#root.replaceChildren(this.#stored);
    this.toEnd();
  }

  /** Show *messages*, which now begin earlier, and stay where the reader is. */
  showEarlier(messages) {
    const fromEnd = this.#scroll.scrollHeight - this.#scroll.scrollTop;
    this.#stored.replaceChildren(...blocks(messages));
    this.#scroll.scrollTop = this.#scroll.scrollHeight - fromEnd;
  }

  /** Begin a turn with what the user asked in *run*, of which some messages may be *stored*. */
  begin(message, run, stored = []) {
    for (const block of [...this.#stored.children]) {
      if (block.dataset.run === run) block.remove();
    }
    const turn = new Turn(this.agent, message, stored, () => this.#moved());
    this.#root.append(turn.element);
    this.toEnd();
    return turn;
  }

  /** Say how the last turn ended. */
  note(kind, text, action) {
    const made = notice(kind, text, {
      label: action.label,
      act: () => {
        made.remove();
        action.act();
      },
    });
    this.#root.append(made);
    this.toEnd();
  }

  /** Show why there is nothing to show. */
  failed(text, retry) {
    this.#stored = h("div", { class: "transcript" });
    this.#root.replaceChildren(notice("error", text, { label: "Try again", act: retry }));
  }

  toEnd() {
    this.#follows = true;
    this.#moved();
  }

  #moved() {
    if (this.#follows) this.#scroll.scrollTop = this.#scroll.scrollHeight;
    this.#watch();
  }

  #watch() {
    const { scrollHeight, scrollTop, clientHeight } = this.#scroll;
    this.#follows = scrollHeight - scrollTop - clientHeight < NEAR_PX;
    $("to-end").hidden = this.#follows;
  }
}

/** A question and its answer while that is made. */
class Turn {
  constructor(agent, message, stored, moved) {
    this.agent = agent;
    this.moved = moved;
    this.#body.append(...blocks(stored));
    this.element.append(userBlock(message), this.#body, this.#foot);
  }

  element = h("div", { class: "transcript" });
  #body = h("div", { class: "transcript" });
  #foot = h("div", { class: "foot" });
  #cards = [];
  #text = "";
  #block = null;
  #frame = 0;

  /** Begin the answer again: it will be told from its beginning. */
  restart() {
    this.#seal();
    this.#cards = [];
    this.#body.replaceChildren();
  }

  addText(text) {
    this.#text += text;
    this.#block ??= this.#body.appendChild(answerBlock());
    // As often as the screen shows it, not as often as it comes.
    this.#frame ||= requestAnimationFrame(() => this.#paint());
  }

  addCall({ id, name, arguments: given }) {
    this.#seal();
    const card = toolCard(id, name, given);
    this.#cards.push(card);
    this.#body.append(card.element);
    this.moved();
  }

  addResult({ id, content }) {
    this.#cards.find((card) => card.id === id && card.isOpen)?.result(content);
    this.moved();
  }

  /** End with the answer, the last text of which is *reply*. */
  end(reply) {
    if (this.#block === null && reply) this.addText("");
    this.#text = reply;
    this.#seal();
    this.#close();
    this.note(null);
    say(`${this.agent}: ${reply}`);
  }

  /** End without an answer; what was said of one is not kept. */
  endWithout() {
    this.#seal();
    this.#close();
    this.#body.lastElementChild?.classList.toggle("unkept", this.#body.lastElementChild.matches(".answer"));
  }

  /** Say how the answer is getting on; null when it is there. */
  note(kind, text = "", action = null) {
    this.#foot.replaceChildren(...(kind === null ? [] : [notice(kind, text, action)]));
    if (text) say(text);
    this.moved();
  }

  #close() {
    for (const card of this.#cards) card.close();
  }

  #seal() {
    cancelAnimationFrame(this.#frame);
    if (this.#block) this.#paint();
    this.#block = null;
    this.#text = "";
  }

  #paint() {
    this.#frame = 0;
    this.#block.replaceChildren(...markdown(this.#text));
    this.moved();
  }
}

function notice(kind, text, action) {
  const act = () => {
    action.act();
    $("scroll").focus(); // the button is gone
  };
  const button = action && h("button", { class: "quiet", type: "button", onclick: act }, action.label);
  const mark = h("span", { class: "mark", "aria-hidden": "true" });
  return h("div", { class: `notice ${kind}` }, mark, h("span", {}, text), button);
}

/** Return stored *messages* as elements. */
function* blocks(messages) {
  let cards = [];
  let asked = null;
  for (const message of messages) {
    const run = message.run_id ?? "";
    const made = [];
    if (message.role === "user") {
      if (asked !== null) yield notice("stopped", "Not answered", null);
      asked = message.run_id ?? null;
      made.push(userBlock(message.content));
    } else if (message.role === "tool") {
      const card = cards.find((one) => one.id === message.tool_call_id && one.isOpen);
      if (card) card.result(message.content);
      else made.push(orphan(message));
    } else {
      if (message.content) made.push(message.role === "system" ? systemBlock(message.content) : answerBlock(message.content));
      if (message.tool_calls) {
        for (const card of cards) card.close();
        cards = message.tool_calls.map((call) => toolCard(call.id, call.name, call.arguments));
        made.push(...cards.map((card) => card.element));
      } else if (message.role === "assistant") {
        asked = null;
      }
    }
    for (const element of made) {
      element.dataset.run = run;
      yield element;
    }
  }
  for (const card of cards) card.close();
}

function userBlock(text) {
  return h("div", { class: "said user" }, h("span", { class: "unseen" }, "You said: "), h("div", { class: "bubble", dir: "auto" }, text));
}

function answerBlock(text = "") {
  return h("div", { class: "said answer", dir: "auto" }, ...markdown(text));
}

function systemBlock(text) {
  return h("div", { class: "said system", dir: "auto" }, h("span", { class: "unseen" }, "System: "), text);
}

function orphan(message) {
  const card = toolCard(message.tool_call_id, message.name ?? "tool", null);
  card.result(message.content);
  return card.element;
}

/** A tool call, folded. */
function toolCard(id, name, given) {
  const state = h("span", { class: "state" }, "running");
  const inside = h("div", { class: "inside" });
  const element = h("details", { class: "tool open" },
    h("summary", {}, h("span", { class: "mark", "aria-hidden": "true" }), h("span", { class: "name", dir: "auto" }, name), state),
    inside,
  );
  if (given !== null) inside.append(...part("Arguments", indented(given)));
  return {
    id,
    element,
    isOpen: true,
    result(content) {
      inside.append(...part("Result", content));
      this.close();
    },
    close() {
      this.isOpen = false;
      element.classList.remove("open");
      state.textContent = "";
    },
  };
}

function part(label, text) {
  return [h("p", { class: "label" }, label), h("pre", { tabindex: "0", role: "group", "aria-label": label, dir: "auto" }, text)];
}

function indented(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}
