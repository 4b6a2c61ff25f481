/** User and password of an address; in a line of JSON a password may have escaped characters. */
const userInfo = /:\/\/(?:\\.|[^\r\n/?#"\\])*@/g;
const option = /([?&][a-z_]*(?:password|token|secret)=)[^&\s"\\]+/gi;
const bearer = /\b(bearer\s+)[\x21\x23-\x5b\x5d-\x7e]{8,}/gi;

/** Names of values that no log line shows, wherever they stand up to depth 2. */
export const secretNames = ["password", "token", "secret", "authorization", "cookie"];

/** A text as it may be shown: addresses without user and passwords, no bearer token. */
export function redactText(text: string): string {
  // The usual text has none of them.
  let shown = text.includes("@") ? text.replace(userInfo, "://***@") : text;
  if (text.includes("=")) shown = shown.replace(option, "$1***");
  return /bearer\s/i.test(shown) ? shown.replace(bearer, "$1***") : shown;
}
