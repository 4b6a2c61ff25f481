-- indexing -> success | error, once (I3): a second word finds another status, a late one another attempt.
-- KEYS 1 epoch  2 task:<id>  3 indexing  4 ended  5 tasks  6 facts
-- ARGV 1 epoch  2 attempt  3 task id  4 end in microseconds  5 error as JSON, '' for success  6 prefix of label keys
--      7 descriptors left out as JSON, '' where that is not known
-- Frees the label (ARGV 6 .. its list_id, same slot by its tag) if this task holds it.
-- Reply: {'ok'} | {'refused', reason}
local refused = refusal(KEYS[1], ARGV[1], KEYS[2], 'indexing', ARGV[2])
if refused then return { 'refused', refused } end
local task = redis.call('HMGET', KEYS[2], 'list_id', 'start_us')
-- The end is by the indexer's clock: one that is ahead would keep the record for ever, one that is behind would have
-- it removed at once.
local finish = math.min(math.max(tonumber(ARGV[4]), tonumber(task[2] or '') or 0), now_us())
if ARGV[5] == '' then
  redis.call('HSET', KEYS[2], 'status', 'success', 'end_us', digits(finish))
  -- What was last seen of the build is not how it ended; of a failure it says how far it got.
  redis.call('HDEL', KEYS[2], 'progress')
else
  redis.call('HSET', KEYS[2], 'status', 'error', 'end_us', digits(finish), 'error', ARGV[5])
end
if ARGV[7] ~= '' then redis.call('HSET', KEYS[2], 'skipped', ARGV[7]) end
note_facts(KEYS[5], KEYS[6], KEYS[2], ARGV[3])
redis.call('SREM', KEYS[3], ARGV[3])
redis.call('ZADD', KEYS[4], digits(finish), ARGV[3])
free_label(ARGV[6] .. (task[1] or ''), ARGV[3])
return { 'ok' }
