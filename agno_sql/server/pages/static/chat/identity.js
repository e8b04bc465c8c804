// Who the user is: a name, or a token where the server asks for one.

import { Api } from "./api.js";
import { $ } from "./dom.js";
import { credentials, lastUser } from "./storage.js";
import { words } from "./words.js";

const takesToken = document.documentElement.dataset.auth === "token";

/** Return an Api and the user's name as this browser knows them; null if it does not. */
export async function known() {
  if (takesToken) {
    const given = credentials.get();
    return given && (await enter(new Api(given)).catch(() => null));
  }
  const user = lastUser.get();
  return user === null ? null : { api: new Api({ user }), user };
}

/** Ask who the user is until the server agrees; null if the user *mayCancel* and does. */
export function ask({ mayCancel = false, reason = "" } = {}) {
  prepare(mayCancel, reason);
  const dialog = $("identity");
  dialog.showModal();
  return new Promise((resolve) => {
    const leave = (found) => {
      dialog.close();
      resolve(found);
    };
    dialog.oncancel = (event) => {
      event.preventDefault();
      if (mayCancel) leave(null);
    };
    $("identity-cancel").onclick = () => leave(null);
    $("identity-form").onsubmit = async (event) => {
      event.preventDefault();
      const found = await tryToEnter();
      if (found) leave(found);
    };
  });
}

function prepare(mayCancel, reason) {
  $("token-field").hidden = !takesToken;
  $("token").required = takesToken;
  $("name").required = !takesToken;
  $("identity-title").textContent = takesToken ? "Sign in" : "Who are you?";
  $("identity-about").textContent = takesToken
    ? "The token is kept in this tab only, and gone when you close it."
    : "Each user has conversations of their own.";
  $("name-label").textContent = takesToken ? "User, if the token is an API key" : "Name";
  $("identity-cancel").hidden = !mayCancel;
  $("identity-error").textContent = reason;
  $("token").value = "";
  $("name").value = "";
}

async function tryToEnter() {
  // A phone's keyboard adds a space behind a name.
  const name = $("name").value.trim();
  const given = { token: takesToken ? $("token").value.trim() : null, user: name || null };
  try {
    const found = await enter(new Api(given));
    if (takesToken) credentials.put(given);
    else lastUser.put(name);
    return found;
  } catch (error) {
    $("identity-error").textContent =
      error.code === "invalid_user_id" ? invalidName(name) : words(error);
    return null;
  }
}

function invalidName(name) {
  return name ? "A name has at most 255 characters, all visible." : "This is an API key: say whom you act for.";
}

/** Return *api* with the name that the server knows the user by. */
async function enter(api) {
  const { user_id: user } = await api.sessions();
  return { api, user };
}
