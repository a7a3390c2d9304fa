// The verifier of personal access tokens, for any runtime with fetch: Node 20 and later, Deno, Bun, workers.

export type { Call, Checker, Decision, Result, Token } from "./decision.js";
export { reasonOf } from "./decision.js";
export { Fault, type FaultKind } from "./fault.js";
export { isPlausible } from "./form.js";
export { Guard, type GuardConfig, type Outcome } from "./guard.js";
export { RouteTable } from "./routes.js";
export type { TokenSource } from "./transport.js";
export { Verifier, type Stats, type VerifierConfig } from "./verifier.js";
export type { Log } from "./watch.js";
