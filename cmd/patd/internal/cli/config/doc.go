// Package config reads the settings of a store and a server: flags, then environment variables, then a YAML file, in
// this order of precedence. Settings has them all; Place is the location of a store and its keys.
package config
