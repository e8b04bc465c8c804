// What went wrong, in words for people.

import { Disconnected } from "./api.js";

const WORDS = {
  body_too_large: "This message is too long for the server.",
  content_filter: "The model's provider refused this message.",
  context_too_long: "This conversation has become too long for the model. Begin a new one.",
  error: "Something went wrong in the server.",
  conversation_busy: "Another message of this conversation is being answered. Waiting for it.",
  forbidden: "Your token does not allow this.",
  input_rejected: "The assistant does not take this message.",
  max_loops: "The assistant used its tools again and again, and came to no answer.",
  model_timeout: "The model took too long to answer.",
  model_unavailable: "The model can't be reached right now.",
  not_found: "This is not there any more.",
  output_rejected: "The answer was held back.",
  overloaded: "The server has much to do. Trying again soon.",
  rate_limited: "The model is asked too much at the moment.",
  run_failed: "The answer failed.",
  run_interrupted: "The server restarts. The answer goes on as soon as it is back.",
  run_lost: "This conversation was cleared, or another process took over.",
  run_timeout: "The answer took too long.",
  stopping: "The server restarts. The answer goes on as soon as it is back.",
  store_unavailable: "The database can't be reached right now.",
  unauthenticated: "This token is not valid, or not any more.",
};
const LOST = "Connection lost. Trying again; nothing is lost.";
const OTHER = "Something went wrong.";

export function words(error) {
  if (error instanceof Disconnected) return LOST;
  if (WORDS[error.code]) return WORDS[error.code];
  return error.message ? `${OTHER} (${error.message})` : OTHER;
}
