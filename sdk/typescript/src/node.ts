// What needs Node's own modules.

import { readFile } from "node:fs/promises";

/**
 * Returns a source of the service token in a file. The file is read again for each request, but not more often than
 * once a second, so that the token can be rotated without a restart.
 */
export function tokenFile(path: string): () => Promise<string> {
  let read: Promise<string> | undefined;
  let until = 0;
  return () => {
    const now = performance.now();
    if (!read || now >= until) {
      until = now + 1000;
      read = readFile(path, "utf8").then((text) => {
        const token = text.trim();
        if (token === "") throw new Error(`the file of the service token is empty: ${path}`);
        return token;
      });
      read.catch(() => (until = 0));
    }
    return read;
  };
}
