-- indexing -> success | error, once (I3): a second word finds another status, a late one another attempt.
-- KEYS 1 epoch  2 task:<id>  3 indexing
-- ARGV 1 epoch  2 attempt  3 task id  4 end in microseconds  5 error as JSON, '' for success  6 prefix of label keys
-- Frees the label (ARGV 6 .. its list_id, same slot by its tag) if this task holds it.
-- Reply: {'ok'} | {'refused', reason}
local refused = refusal(KEYS[1], ARGV[1], KEYS[2], 'indexing', ARGV[2])
if refused then return { 'refused', refused } end
if ARGV[5] == '' then
  redis.call('HSET', KEYS[2], 'status', 'success', 'end_us', ARGV[4])
  -- What was last seen of the build is not how it ended; of a failure it says how far it got.
  redis.call('HDEL', KEYS[2], 'progress')
else
  redis.call('HSET', KEYS[2], 'status', 'error', 'end_us', ARGV[4], 'error', ARGV[5])
end
redis.call('SREM', KEYS[3], ARGV[3])
free_label(ARGV[6] .. redis.call('HGET', KEYS[2], 'list_id'), ARGV[3])
return { 'ok' }
