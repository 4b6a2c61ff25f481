-- Deletes an indexer's registration, unless another process took it over.
-- KEYS 1 lim_indexer__<origin>
-- ARGV 1 value that the registrant wrote
-- Reply: number of keys deleted
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
