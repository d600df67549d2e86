-- Put outcomes into the ring of a model. KEYS[1] the ring; ARGV: most outcomes in it, then outcomes.
-- Returns 1, or 0 where the store takes none.
return put(KEYS[1], tonumber(ARGV[1]), { unpack(ARGV, 2) }) and 1 or 0
