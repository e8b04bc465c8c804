// The chat page: which user, which conversation, and what the keys and buttons do.

import { newId } from "./api.js";
import { Conversation } from "./conversation.js";
import { $, say } from "./dom.js";
import * as identity from "./identity.js";
import { Sessions } from "./sessions.js";
import { Outbox, credentials } from "./storage.js";
import { Transcript } from "./transcript.js";
import { words } from "./words.js";

const agent = document.documentElement.dataset.agent;
const transcript = new Transcript(agent);
const isPhone = matchMedia("(max-width: 47.99rem)");

let me = null;
let sessions = null;
let conversation = null;
let isSendWanted = false;

// ---- The user

async function start() {
  enter((await identity.known()) ?? (await identity.ask()));
}

function enter(found) {
  sessions?.leave();
  conversation?.leave();
  conversation = null; // what is written from now on is the new user's
  transcript.show([]);
  $("greeting").hidden = true;
  if (me !== null && me.user !== found.user) {
    // Nothing of the one before stays.
    $("spoken").replaceChildren();
    isSendWanted = false;
    fill("");
    history.pushState(null, "", address(null));
  }
  me = { ...found, outbox: new Outbox(found.user) };
  $("user-name").textContent = me.user;
  $("greeted").textContent = me.user;
  $("initial").textContent = [...me.user.trim()][0] ?? "?";
  sessions = new Sessions({ api: me.api, pick: go });
  openFirst();
}

async function openFirst() {
  const mine = sessions;
  try {
    const latest = await mine.refresh();
    if (mine === sessions) openOrBegin(sessionOfAddress() ?? latest);
  } catch (error) {
    if (mine !== sessions) return;
    if (error.status === 401) signedOut(words(error));
    else transcript.failed(words(error), openFirst);
  }
}

async function switchUser(options) {
  const found = await identity.ask(options);
  if (found !== null) enter(found);
}

async function signedOut(reason) {
  conversation?.leave();
  credentials.drop();
  enter(await identity.ask({ reason }));
}

// ---- The conversation. The address names it behind the #, which browsers send to nobody.

function sessionOfAddress() {
  if (!location.hash.startsWith("#/")) return null;
  try {
    return decodeURIComponent(location.hash.slice(2)) || null;
  } catch {
    return null;
  }
}

function address(session) {
  return session === null ? location.pathname + location.search : `#/${encodeURIComponent(session)}`;
}

/** Go to a conversation; null begins a new one. */
function go(session) {
  if (session === null || session !== conversation?.session) {
    history.pushState(null, "", address(session));
    openOrBegin(session);
  }
  closeSide();
  if (!isPhone.matches) $("message").focus();
}

/** Open a conversation; null begins a new one, which has an address when something is said in it. */
function openOrBegin(named) {
  const session = named ?? newId();
  const isNew = named === null;
  if (!isNew) history.replaceState(null, "", address(session));
  conversation?.leave();
  const opened = new Conversation({
    api: me.api,
    session,
    isNew,
    transcript,
    outbox: me.outbox,
    tell: (what, detail) => opened === conversation && hear(what, detail),
  });
  conversation = opened;
  sessions.mark(session);
  transcript.show([]);
  $("greeting").hidden = true;
  show();
  opened.open();
  if (isSendWanted) send();
}

function hear(what, detail) {
  if (what === "working") history.replaceState(null, "", address(conversation.session));
  if (what === "signedOut") signedOut(detail);
  if (what === "refused" && !$("message").value) fill(detail);
  if (what === "stored") refresh();
  show();
}

async function refresh() {
  await sessions.refresh().catch(() => null); // the conversation tells what is wrong
  show();
}

function show() {
  if (conversation === null) return;
  const isWorking = conversation.isWorking;
  $("stop").hidden = !isWorking;
  $("send").hidden = isWorking;
  $("send").disabled = !$("message").value.trim();
  $("earlier").hidden = !conversation.hasEarlier;
  $("greeting").hidden = !conversation.isNew;
  $("clear").hidden = conversation.isEmpty;
  const title = sessions.title(conversation.session)?.trim() || (conversation.isEmpty ? "New conversation" : conversation.session);
  $("title").textContent = title;
  document.title = `${title} – ${agent}`;
}

// ---- Writing

function fill(text) {
  $("message").value = text;
  grow();
}

function grow() {
  $("too-long").textContent = "";
  const box = $("message");
  box.style.height = "auto";
  box.style.height = `${box.scrollHeight}px`;
  show();
}

function send() {
  const text = $("message").value;
  isSendWanted = conversation === null; // as soon as it is known where to
  if (!text.trim() || isSendWanted || conversation.isWorking) return;
  if (!me.api.fits(conversation.session, text)) {
    $("too-long").textContent = "This message is too long for the server.";
    return;
  }
  fill("");
  conversation.ask(text);
  show();
}

$("message").addEventListener("input", grow);
$("message").addEventListener("keydown", (event) => {
  // Not while an input method composes a character: its Enter chooses one.
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    send();
  }
});
$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
  $("message").focus();
});

function stop() {
  conversation.stop();
  // On a phone the message box would bring up the keyboard.
  $(isPhone.matches ? "scroll" : "message").focus();
}

$("stop").addEventListener("click", stop);
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.isComposing || document.querySelector("dialog[open]")) return;
  if (isSideOpen()) closeSide();
  else if (conversation?.isWorking) stop();
});

$("earlier").addEventListener("click", async () => {
  const label = await conversation.showEarlier().then(
    () => "Show earlier messages",
    (error) => `${words(error)} Try again`,
  );
  $("earlier").textContent = label;
  show();
  if ($("earlier").hidden) $("scroll").focus();
});
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address names the conversation
  $("message").focus();
});

// ---- Clearing

$("clear").addEventListener("click", () => {
  $("confirm-error").textContent = "";
  $("confirm").showModal();
});
$("confirm-no").addEventListener("click", () => $("confirm").close());
$("confirm-yes").addEventListener("click", async () => {
  try {
    await me.api.clear(conversation.session);
  } catch (error) {
    if (error.code !== "not_found") {
      $("confirm-error").textContent = words(error);
      return;
    }
  }
  $("confirm").close();
  me.outbox.drop(conversation.session);
  sessions.forget(conversation.session);
  say("The conversation is cleared.");
  go(null);
  refresh();
});

// ---- The side bar, which is a drawer on a phone

function isSideOpen() {
  return document.body.classList.contains("side-open");
}

function setSide(isOpen) {
  document.body.classList.toggle("side-open", isOpen);
  $("open-side").setAttribute("aria-expanded", String(isOpen));
  $("main").inert = isOpen;
  $("shade").hidden = !isOpen;
}

function closeSide() {
  if (!isSideOpen()) return;
  setSide(false);
  $("open-side").focus();
}

$("open-side").addEventListener("click", () => {
  setSide(true);
  $("close-side").focus();
});
$("close-side").addEventListener("click", closeSide);
$("shade").addEventListener("click", closeSide);
isPhone.addEventListener("change", () => setSide(false));

$("new").addEventListener("click", () => go(null));
$("switch-user").addEventListener("click", () => switchUser({ mayCancel: true }));
window.addEventListener("popstate", () => {
  const session = sessionOfAddress();
  if (me === null || session === conversation?.session) return;
  openOrBegin(session);
});

start();
