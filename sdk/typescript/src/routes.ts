// Tables of routes: which scopes a token needs for which requests. `patd scopes import` writes one, docs/routes.md
// describes it. It closes all that it does not open.

interface Segment {
  readonly prefix: string;
  readonly suffix: string;
  readonly param: boolean;
}

interface Path {
  readonly template: string;
  readonly segments: readonly Segment[];
  readonly folded: readonly Segment[]; // in small letters
  readonly slash: boolean; // at the end
  readonly shape: string; // equal for templates of the same paths
  readonly methods: Map<string, readonly string[]>;
}

const maxTable = 8 << 20;
const maxPath = 2048;
const letters = "A-Za-z0-9";
const text = new RegExp(`^[${letters}._~!$&'()*+,=:@-]*$`);
const parameter = new RegExp(`^([^{}]*)\\{[${letters}._-]+\\}([^{}]*)$`);
// What ends a segment somewhere, what no path has, and escapes of what needs none.
const unclear = /[\x00-\x1f\x7f\\;#?]|%(?:[01].|7f|2[def]|3[0-9b]|[46][1-9a-f]|[57][0-9a]|5[cf]|7e)/i;

/** A table of routes. It never changes. */
export class RouteTable {
  readonly #paths = new Map<number, Path[]>(); // by the number of their segments, the most specific first

  private constructor(routes: readonly { method: string; path: string; scopes: readonly string[] }[]) {
    const shapes = new Map<string, Path>();
    for (const route of routes) {
      const made = parsePath(route.path);
      const path = shapes.get(made.shape) ?? made;
      shapes.set(made.shape, path);
      if (path.template !== route.path)
        throw new TypeError(`${path.template} and ${route.path} are the same path, but for names, case or a slash`);
      if (path.methods.has(route.method)) throw new TypeError(`${route.method} ${route.path} is listed twice`);
      path.methods.set(route.method, [...route.scopes]);
    }
    for (const path of [...shapes.values()].sort(compare)) {
      const n = path.segments.length;
      this.#paths.set(n, [...(this.#paths.get(n) ?? []), path]);
    }
  }

  /** Reads a table: its JSON, or what that is parsed to. Throws TypeError for one that is not understood. */
  static from(table: string | object): RouteTable {
    if (typeof table === "string" && table.length > maxTable) throw new TypeError("the table of routes is too large");
    const { version, routes } = members(typeof table === "string" ? parse(table) : table, ["version", "routes"]);
    if (version !== 1) throw new TypeError("the table of routes is of another version than 1");
    if (!Array.isArray(routes)) throw new TypeError("the routes of a table are a list");
    return new RouteTable(
      routes.map((r: unknown) => {
        const { method, path, scopes } = members(r, ["method", "path", "scopes"]);
        if (typeof method !== "string" || typeof path !== "string" || !/^[A-Z-]{1,32}$/.test(method))
          throw new TypeError(`a route is wrong: ${String(method)} ${String(path)}`);
        if (!Array.isArray(scopes) || !scopes.every(isScope) || new Set(scopes).size < scopes.length)
          throw new TypeError(`the scopes of ${method} ${path} are wrong`);
        return { method, path, scopes };
      }),
    );
  }

  /**
   * Returns the scopes that a request needs, at least one; undefined: it is closed. The path is that of the request
   * line, without the query and as it was written.
   */
  find(method: string, path: string): readonly string[] | undefined {
    if (!path.startsWith("/")) return undefined;
    const raw = path.slice(1).split("/");
    const slash = raw.at(-1) === "";
    if (slash) raw.pop();
    const decoded: string[] = [];
    for (const segment of raw) {
      if (segment === "" || segment === "." || segment === ".." || unclear.test(segment)) return undefined;
      if (/%(?![0-9a-f]{2})/i.test(segment)) return undefined;
      decoded.push(fold(segment.replace(/%(..)/g, (_, hex: string) => String.fromCharCode(parseInt(hex, 16)))));
    }
    for (const p of this.#paths.get(raw.length) ?? []) {
      if (!p.folded.every((s, i) => holds(s, decoded[i] as string))) continue;
      const spelled = p.slash === slash && p.segments.every((s, i) => spells(s, raw[i] as string));
      const scopes = p.methods.get(method);
      return spelled && scopes && scopes.length > 0 ? scopes : undefined;
    }
    return undefined;
  }
}

function parse(json: string): unknown {
  try {
    return JSON.parse(json) as unknown;
  } catch {
    throw new TypeError("the table of routes is not JSON");
  }
}

/** Returns the members of an object, which must be the wanted ones. */
function members(value: unknown, names: string[]): Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw new TypeError("a table of routes has an object there");
  const has = Object.keys(value);
  if (has.length !== names.length || !names.every((n) => has.includes(n)))
    throw new TypeError(`a table of routes has ${names.join(", ")} there, and nothing else`);
  return value as Record<string, unknown>;
}

/** Reports whether a value is a scope (RFC 6749 section 3.3). */
function isScope(value: unknown): boolean {
  return typeof value === "string" && /^[\x21\x23-\x5b\x5d-\x7e]{1,128}$/.test(value);
}

function parsePath(template: string): Path {
  const wrong = (): never => {
    throw new TypeError(`no path of a table of routes: ${template}`);
  };
  if (!template.startsWith("/") || template.length > maxPath) wrong();
  const texts = template.slice(1).split("/");
  const slash = texts.at(-1) === "";
  if (slash) texts.pop();
  const segments = texts.map((t): Segment => {
    const found = parameter.exec(t);
    const s = found
      ? { prefix: found[1] as string, suffix: found[2] as string, param: true }
      : { prefix: t, suffix: "", param: false };
    if (t === "" || t === "." || t === ".." || !text.test(s.prefix) || !text.test(s.suffix)) wrong();
    return s;
  });
  const folded = segments.map((s) => ({ prefix: fold(s.prefix), suffix: fold(s.suffix), param: s.param }));
  const shape = folded.map((s) => "/" + s.prefix + (s.param ? "{}" + s.suffix : "")).join("");
  return { template, segments, folded, slash, shape, methods: new Map() };
}

/** Orders paths of as many segments: a text, a parameter with texts around it, the longer first, a parameter alone. */
function compare(a: Path, b: Path): number {
  for (let i = 0; i < Math.min(a.segments.length, b.segments.length); i++) {
    const c = rank(a.segments[i] as Segment) - rank(b.segments[i] as Segment);
    if (c !== 0) return c;
  }
  return a.shape < b.shape ? -1 : 1;
}

function rank(s: Segment): number {
  return s.param ? 2 * maxPath - s.prefix.length - s.suffix.length : 0;
}

function holds(s: Segment, t: string): boolean {
  if (!s.param) return t === s.prefix;
  return t.length > s.prefix.length + s.suffix.length && spells(s, t);
}

function spells(s: Segment, t: string): boolean {
  return s.param ? t.startsWith(s.prefix) && t.endsWith(s.suffix) : t === s.prefix;
}

/** Turns the letters of ASCII into small ones. */
function fold(t: string): string {
  return t.replace(/[A-Z]/g, (c) => c.toLowerCase());
}
