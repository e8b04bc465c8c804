// The conversations of the user, in the side bar.

import { $, h } from "./dom.js";
import { words } from "./words.js";

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
const DAY_MS = 24 * HOUR_MS;
const DAY = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
const YEAR = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", year: "numeric" });
const WHOLE = new Intl.DateTimeFormat(undefined, { dateStyle: "long", timeStyle: "short" });

export class Sessions {
  /** *pick* is told which conversation the user has picked. */
  constructor({ api, pick }) {
    this.api = api;
    this.pick = pick;
    $("sessions").replaceChildren();
    $("more-sessions").onclick = () => this.more();
  }

  #known = [];
  #cursor = null;
  #current = null;
  #asked = 0;
  #isLeft = false;

  /** Show nothing any more: another user is here. */
  leave() {
    this.#isLeft = true;
  }

  /** Show the conversations anew, the latest first; return that one, null if there is none. */
  async refresh() {
    const asked = ++this.#asked;
    const page = await this.#page(null);
    if (asked !== this.#asked) return null; // a later one has been asked for
    const isFirst = this.#known.length === 0;
    const anew = new Set(page.sessions.map((one) => one.session_id));
    const older = this.#known.filter((one) => !anew.has(one.session_id));
    this.#known = page.next === null ? page.sessions : [...page.sessions, ...older];
    if (isFirst || page.next === null) this.#cursor = page.next;
    this.#show();
    return this.#known[0]?.session_id ?? null;
  }

  async more() {
    let page;
    try {
      page = await this.#page(this.#cursor);
    } catch (error) {
      $("more-sessions").textContent = `${words(error)} Try again`;
      return;
    }
    $("more-sessions").textContent = "More conversations";
    this.#known.push(...page.sessions);
    this.#cursor = page.next;
    this.#show();
  }

  /** Mark the one that is open. */
  mark(session) {
    this.#current = session;
    this.#show();
  }

  /** Show it no more: it was cleared. */
  forget(session) {
    this.#known = this.#known.filter((one) => one.session_id !== session);
    this.#show();
  }

  title(session) {
    return this.#known.find((one) => one.session_id === session)?.title ?? null;
  }

  /** Return the page behind *cursor*; those that were cleared are left out. */
  async #page(cursor) {
    let page;
    do {
      page = await this.api.sessions(cursor);
      page.sessions = page.sessions.filter((one) => one.message_count > 0);
      cursor = page.next;
    } while (page.sessions.length === 0 && cursor !== null);
    return page;
  }

  #show() {
    if (this.#isLeft) return;
    // The button that has the focus keeps it.
    const focused = document.activeElement?.closest("#sessions button")?.dataset.session;
    const items = this.#known.map((one) => this.#item(one));
    $("sessions").replaceChildren(...items);
    $("more-sessions").hidden = this.#cursor === null;
    if (focused !== undefined) {
      items.map((item) => item.firstChild).find((button) => button.dataset.session === focused)?.focus();
    }
  }

  #item({ session_id: id, title, last_active_at: at }) {
    const date = new Date(at);
    const button = h("button", { type: "button", "data-session": id, onclick: () => this.pick(id) },
      h("span", { class: "session-title", dir: "auto" }, title?.trim() || id),
      h("time", { datetime: at, title: WHOLE.format(date) }, brief(date)),
    );
    if (id === this.#current) button.setAttribute("aria-current", "true");
    return h("li", {}, button);
  }
}

function brief(date) {
  const ago = Date.now() - date;
  if (ago < MINUTE_MS) return "now";
  if (ago < HOUR_MS) return `${Math.floor(ago / MINUTE_MS)} min`;
  if (ago < DAY_MS) return `${Math.floor(ago / HOUR_MS)} h`;
  if (ago < 7 * DAY_MS) return `${Math.floor(ago / DAY_MS)} d`;
  return (date.getFullYear() === new Date().getFullYear() ? DAY : YEAR).format(date);
}
