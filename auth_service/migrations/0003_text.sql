-- The names of accounts in Unicode NFC, as the service stores them. These are the rows from before.
UPDATE auth.users SET name = normalize(name) WHERE name IS NOT NFC NORMALIZED AND char_length(normalize(name)) <= 100;
