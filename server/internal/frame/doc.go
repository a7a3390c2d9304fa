// Package frame is what the pages for people share: routes, security headers, the session of the browser, templates and
// texts. The user's pages are in package page, the operators' in package admin; both lean on this one and not on each
// other.
//
// # Who calls
//
// A browser shows a session's secret in a cookie. The frame looks the session up in the store on every request, so that
// a session that was ended anywhere is ended everywhere. What a handler then does for the user it does with
// [Request.Do], which passes the steps of every other call: rights, limits, recorded refusals, metrics, the log line.
// Handlers decide nothing.
//
// # What is refused
//
// A request that changes something and comes from another site is refused before anything else (see
// http.CrossOriginProtection), and so is one whose form was made for another session. Every page has a
// Content-Security-Policy in which nothing is inline.
//
// # What is never lost
//
// A form that arrives when its session has ended is kept, sealed under the cookie, for the same user's next session in
// the same browser. A form that arrives during an outage is shown again, with a button that sends it once more.
package frame
