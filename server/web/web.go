// Package web holds what a browser gets: the templates of the pages, their styles and script, and all their texts.
// There is no build step: the files are served as they stand here.
//
//	templates/   html/template, one file a page; layout.html is the frame around each
//	assets/      page.css, page.js, embed.js
//	texts/       en.json has every text that a person reads, by key; a translation is a file beside it
package web

import "embed"

// Files are the templates, assets and texts.
//
//go:embed templates assets texts
var Files embed.FS
