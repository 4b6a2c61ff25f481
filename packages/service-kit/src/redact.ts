/** An address as it may be shown: without user and password. */
export function redactUrl(text: string): string {
  return text.replace(/(^[a-z][a-z0-9+.-]*:\/\/)[^/?#]*@/i, "$1***@");
}
