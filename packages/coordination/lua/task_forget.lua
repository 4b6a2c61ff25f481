-- Drops ids whose record vanished from the indexes. Looks again, since the record may have been adopted meanwhile.
-- KEYS 1 tasks  2 queue  3 indexing  4 ended  5 facts  6 tasks_of:<label>, only where they were met there
-- ARGV 1 prefix of task keys (same slot by its tag)  2… task ids
-- Reply: number of ids dropped
local dropped = 0
for i = 2, #ARGV do
  if redis.call('EXISTS', ARGV[1] .. ARGV[i]) == 0 then
    drop_facts(KEYS[1], KEYS[5], ARGV[i])
    redis.call('ZREM', KEYS[1], ARGV[i])
    redis.call('ZREM', KEYS[2], ARGV[i])
    redis.call('SREM', KEYS[3], ARGV[i])
    redis.call('ZREM', KEYS[4], ARGV[i])
    if KEYS[6] then redis.call('ZREM', KEYS[6], ARGV[i]) end
    dropped = dropped + 1
  end
end
return dropped
