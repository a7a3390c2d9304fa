-- In a file, rows may be smaller from here on: name_key is empty where it is the name in lower case, and checksums (row_mac and its
-- like) may have their short form. Here they are written as before, so that servers of the version before go on, until a store in a
-- file is copied into this database, which raises oldest as the file has it.

-- +goose Up

SELECT 1;
