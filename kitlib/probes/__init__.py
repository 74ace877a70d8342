"""Active measurements as (command, parse) pairs: text in, rows out, nothing is run here."""
