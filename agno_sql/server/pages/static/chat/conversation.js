// One conversation that is open: what was said, and the run that is at work in it.
//
// A run belongs to the server. The page only follows it, and finds it again after a reload, a lost
// connection or a restart by its run_id: asking with the same one is safe, however often.

import { Disconnected, Problem, newId } from "./api.js";
import { words } from "./words.js";

// What passes by itself; the page asks again until it has.
const PASSING = new Set(["run_interrupted", "stopping", "conversation_busy", "overloaded"]);
// What was refused before anything was stored: the text goes back to its writer.
const REFUSED = new Set([403, 413, 415, 422]);
const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 8_000;

export class Conversation {
  /**
   * *outbox* keeps what was asked until it is known how that ended. *tell* is told what happens:
   * "working", "idle", "loaded"; "stored" when the list of conversations may have changed;
   * "refused" with the text that was; "signedOut" with the reason.
   */
  constructor({ api, session, isNew, transcript, outbox, tell }) {
    this.api = api;
    this.#isLoaded = isNew;
    this.session = session;
    this.transcript = transcript;
    this.outbox = outbox;
    this.tell = tell;
  }

  #messages = [];
  #cursor = null;
  #left = new AbortController();
  #running = null;
  #turns = 0;
  #isLoaded;
  #opened = null;
  #wake = () => {};

  get hasEarlier() {
    return this.#cursor !== null;
  }

  get isEmpty() {
    return this.#messages.length + this.#turns === 0;
  }

  /** Whether it is known that nothing was said yet. */
  get isNew() {
    return this.isEmpty && this.#isLoaded;
  }

  get isWorking() {
    return this.#running !== null;
  }

  /** Show the newest messages, and go on following a run that is at work. */
  open() {
    this.#opened = this.#open();
    return this.#opened;
  }

  async showEarlier() {
    const page = await this.api.messages(this.session, this.#cursor);
    if (this.#isLeft) return;
    this.#messages.unshift(...page.messages.reverse());
    this.#cursor = page.next ?? null;
    const shown = this.#running?.run; // by its turn
    this.transcript.showEarlier(this.#messages.filter((one) => !shown || one.run_id !== shown));
  }

  /** Leave it: a run at work goes on in the server. */
  leave() {
    this.#left.abort();
    this.#wake();
  }

  /** Ask *message*; return when it is answered, or will not be. */
  async ask(message) {
    await this.#opened;
    if (this.#isLeft || this.isWorking) {
      this.tell("refused", message); // a run was found at work
      return;
    }
    const run = newId();
    this.outbox.put(this.session, { run, message });
    this.#turns += 1;
    await this.#follow({ run, message, turn: this.transcript.begin(message, run), isRejoined: false });
  }

  /** Stop the run at work. */
  async stop() {
    const running = this.#running;
    if (running === null || running.isStopped) return;
    running.isStopped = true;
    running.turn.note("waiting", "Stopping");
    try {
      await this.api.cancel(this.session, running.run);
    } catch (error) {
      // The server does not know it, or can't be told: it is not asked for again in any case.
      running.listening.abort(error);
    }
    this.#wake();
  }

  async #open() {
    if (this.#isLoaded) return; // there is nothing yet
    try {
      await this.#load();
      if (!this.#isLeft) await this.#rejoin();
    } catch (error) {
      if (!this.#isLeft) this.#cannotOpen(error);
    }
  }

  get #isLeft() {
    return this.#left.signal.aborted;
  }

  async #load() {
    let page = { messages: [], next: null };
    try {
      page = await this.api.messages(this.session);
    } catch (error) {
      if (error.code !== "not_found") throw error; // an address of another user, or nothing is stored yet
    }
    if (this.#isLeft) return;
    this.#messages = page.messages.reverse();
    this.#cursor = page.next ?? null;
    this.#turns = 0;
    this.#isLoaded = true;
    this.transcript.show(this.#messages);
    this.tell("loaded");
  }

  /** Begin to follow the run that is at work, if one is, or tell how the last one ended without an answer. */
  async #rejoin() {
    const sent = this.outbox.get(this.session);
    const isStored = sent && this.#messages.some((message) => message.run_id === sent.run);
    if (sent && !isStored) {
      this.#attach(sent.message, sent.run);
      return;
    }
    this.outbox.drop(this.session);
    const last = this.#messages.at(-1);
    if (!last?.run_id || (last.role === "assistant" && !last.tool_calls)) return;
    const status = await this.#statusOf(last.run_id);
    if (status === null) return; // no run of ours has stored it
    while (this.hasEarlier && !this.#question(last.run_id)) await this.showEarlier();
    const question = this.#question(last.run_id);
    if (this.#isLeft || !question) return;
    if (status === "running") {
      this.#attach(question.content, last.run_id);
    } else if (status === "completed") {
      await this.#load();
    } else {
      const text = status === "cancelled" ? "Stopped" : "This was not answered: something went wrong.";
      const again = { label: "Ask again", act: () => this.isWorking || this.ask(question.content) };
      this.transcript.note(status === "cancelled" ? "stopped" : "error", text, again);
    }
  }

  /** Return what is stored of *run*; null if nothing is. */
  async #statusOf(run) {
    try {
      return (await this.api.run(this.session, run)).status;
    } catch (error) {
      if (error.code === "not_found") return null;
      throw error;
    }
  }

  #question(run) {
    return this.#messages.find((message) => message.run_id === run && message.role === "user");
  }

  #attach(message, run) {
    const stored = this.#messages.filter((one) => one.run_id === run && one.role !== "user");
    const turn = this.transcript.begin(message, run, stored);
    this.#turns += 1;
    this.#follow({ run, message, turn, isRejoined: true });
  }

  /** Follow *running* to its end, over lost connections and restarts. */
  async #follow(running) {
    running.listening = new AbortController();
    running.isStopped = false;
    this.#running = running;
    this.tell("working");
    for (let pause = FIRST_PAUSE_MS; ; pause = Math.min(2 * pause, LONGEST_PAUSE_MS)) {
      let error;
      try {
        await this.#listen(running);
        return;
      } catch (caught) {
        error = caught;
      }
      if (this.#isLeft) return;
      if (running.isStopped || error.code === "run_cancelled") {
        this.#endWithout(running, "stopped", "Stopped. An unfinished answer is not kept.");
        return;
      }
      if (!isPassing(error)) {
        error = await this.#fail(running, error);
        if (error === null) return;
      }
      running.isRejoined = true;
      running.turn.note("waiting", words(error), { label: "Try now", act: () => this.#wake() });
      await this.#pause(pause);
      running.turn.note("working");
    }
  }

  /** Show the events of *running*; an end without an answer is raised. */
  async #listen(running) {
    const { run, message, turn } = running;
    const signal = AbortSignal.any([this.#left.signal, running.listening.signal]);
    let isFirst = true;
    turn.note("working");
    for await (const [name, data] of this.api.chat(this.session, run, message, signal)) {
      if (name === "error") throw new Problem(data);
      if (name === "done") {
        // What came before the page followed it may have been stored, not told.
        if (running.isRejoined) await this.#load();
        this.#settle(running);
        turn.end(data.reply);
        this.tell("stored");
        return;
      }
      if (name === "run") continue;
      if (isFirst) {
        turn.restart();
        this.tell("stored");
      }
      isFirst = false;
      if (name === "text") turn.addText(data.text);
      if (name === "tool_call") turn.addCall(data);
      if (name === "tool_result") turn.addResult(data);
    }
    throw new Disconnected("the stream ended early");
  }

  /** Tell that *running* has failed; return what passes, if that is all. */
  async #fail(running, error) {
    if (error.status === 401) {
      this.tell("signedOut", words(error)); // the outbox keeps what was asked
      return null;
    }
    let status;
    try {
      status = await this.#statusOf(running.run);
    } catch (unknown) {
      if (unknown instanceof Disconnected) return unknown;
      status = "unknown";
    }
    if (this.#isLeft) return null;
    if (status === "completed") return new Disconnected("it was answered after all: ask for it");
    if (status === null && REFUSED.has(error.status)) {
      this.#endWithout(running, "error", `Not sent. ${words(error)}`);
      this.tell("refused", running.message);
    } else {
      const isOver = status === "failed" || status === "cancelled";
      this.#endWithout(running, "error", words(error), {
        label: "Try again",
        // A run that has failed stays so: only another one can be answered.
        act: () => this.isWorking || (isOver ? this.ask(running.message) : this.#again(running)),
      });
      if (!isOver) this.outbox.put(this.session, running);
    }
    return null;
  }

  async #again(running) {
    running.isRejoined = true;
    running.turn.restart();
    await this.#follow(running);
  }

  #endWithout(running, kind, text, action = null) {
    this.#settle(running);
    running.turn.endWithout();
    running.turn.note(kind, text, action);
    this.tell("stored");
  }

  #settle(running) {
    if (this.#running === running) this.#running = null;
    this.outbox.drop(this.session);
    this.tell("idle");
  }

  #pause(ms) {
    return new Promise((resolve) => {
      this.#wake = resolve;
      setTimeout(resolve, ms);
    });
  }

  #cannotOpen(error) {
    if (error.status === 401) this.tell("signedOut", words(error));
    else this.transcript.failed(words(error), () => this.open());
  }
}

function isPassing(error) {
  return error instanceof Disconnected || PASSING.has(error.code);
}
