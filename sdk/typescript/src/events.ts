/** An event of a stream. */
export interface ServerEvent {
  /** Its name; `message` if it has none. */
  readonly type: string;
  readonly data: string;
}

/** The longest event, in characters. */
const maxEvent = 4 << 20;

/** Reads server-sent events (WHATWG HTML, section 9.2) from a stream of bytes. */
export async function* readEvents(body: ReadableStream<Uint8Array>): AsyncGenerator<ServerEvent, void, void> {
  const reader = body.getReader();
  const decoder = new TextDecoder(); // it takes a byte order mark away
  let rest = "";
  let type = "";
  let data: string[] = [];
  let length = 0;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return; // what no empty line ended is no event
      const text = rest + decoder.decode(value, { stream: true });
      rest = "";
      let at = 0;
      for (;;) {
        const end = lineEnd(text, at);
        if (end < 0) break;
        const line = text.slice(at, end);
        at = end + (text.startsWith("\r\n", end) ? 2 : 1);
        if (line === "") {
          if (data.length > 0) yield { type: type || "message", data: data.join("\n") };
          type = "";
          data = [];
          length = 0;
          continue;
        }
        const colon = line.indexOf(":");
        if (colon === 0) continue; // a comment
        const field = colon < 0 ? line : line.slice(0, colon);
        const content = colon < 0 ? "" : line.slice(colon + (line.startsWith(": ", colon) ? 2 : 1));
        if (field === "event") type = content;
        if (field === "data") {
          data.push(content);
          length += content.length;
        }
      }
      rest = text.slice(at);
      if (length + rest.length > maxEvent) throw new Error("an event is too long");
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** Returns where a line ends, or -1. A carriage return at the end of what came may have its line feed yet to come. */
function lineEnd(text: string, from: number): number {
  for (let i = from; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (c === 10 || (c === 13 && i + 1 < text.length)) return i;
  }
  return -1;
}
