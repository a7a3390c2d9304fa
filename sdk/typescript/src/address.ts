/** An IP address: 16 bytes, IPv4 as ::ffff:a.b.c.d, and its text as patd takes it. */
export interface Address {
  readonly bytes: Uint8Array;
  readonly text: string;
}

/** Reads an IP address. A zone is left out. Null: it is none. */
export function parseAddress(text: string): Address | null {
  if (text.length > 100) return null;
  const zone = text.indexOf("%");
  const bare = zone < 0 ? text : text.slice(0, zone);
  const bytes = new Uint8Array(16);
  if (!bare.includes(":")) {
    if (zone >= 0 || !readIPv4(bare, bytes)) return null;
    bytes[10] = bytes[11] = 0xff;
    return { bytes, text: bare };
  }
  if (zone === text.length - 1 || !readIPv6(bare, bytes)) return null;
  return { bytes, text: isMapped(bytes) ? bytes.slice(12).join(".") : bare.toLowerCase() };
}

function isMapped(b: Uint8Array): boolean {
  for (let i = 0; i < 10; i++) if (b[i] !== 0) return false;
  return b[10] === 0xff && b[11] === 0xff;
}

/** Reads a.b.c.d into the last 4 bytes. */
function readIPv4(text: string, into: Uint8Array): boolean {
  let field = -1; // no digit yet
  let n = 0;
  for (let i = 0; i <= text.length; i++) {
    const c = i < text.length ? text.charCodeAt(i) : 46;
    if (c === 46) {
      if (field < 0 || n > 3) return false;
      into[12 + n++] = field;
      field = -1;
    } else if (c >= 48 && c <= 57) {
      if (field === 0) return false; // a leading zero means octal to some programs
      field = field < 0 ? c - 48 : field * 10 + c - 48;
      if (field > 255) return false;
    } else {
      return false;
    }
  }
  return n === 4;
}

function readIPv6(text: string, into: Uint8Array): boolean {
  const halves = text.split("::");
  if (halves.length > 2) return false;
  const groups: number[][] = [];
  for (const [i, half] of halves.entries()) {
    const out: number[] = [];
    if (half !== "") {
      const parts = half.split(":");
      for (const [j, part] of parts.entries()) {
        const last = j === parts.length - 1 && i === halves.length - 1;
        if (last && part.includes(".")) {
          const four = new Uint8Array(16);
          if (!readIPv4(part, four)) return false;
          out.push(
            ((four[12] as number) << 8) | (four[13] as number),
            ((four[14] as number) << 8) | (four[15] as number),
          );
        } else if (/^[0-9A-Fa-f]{1,4}$/.test(part)) {
          out.push(parseInt(part, 16));
        } else {
          return false;
        }
      }
    }
    groups.push(out);
  }
  const [head = [], tail] = groups;
  const length = head.length + (tail?.length ?? 0);
  if (tail === undefined ? length !== 8 : length > 7) return false;
  const all = tail === undefined ? head : [...head, ...new Array<number>(8 - length).fill(0), ...tail];
  for (const [i, group] of all.entries()) {
    into[2 * i] = group >>> 8;
    into[2 * i + 1] = group & 0xff;
  }
  return true;
}
