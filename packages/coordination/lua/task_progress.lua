-- Notes how far a running build is.
-- KEYS 1 epoch  2 task:<id>
-- ARGV 1 epoch  2 attempt  3 progress as JSON
-- Reply: {'ok'} | {'refused', reason}
local refused = refusal(KEYS[1], ARGV[1], KEYS[2], 'indexing', ARGV[2])
if refused then return { 'refused', refused } end
redis.call('HSET', KEYS[2], 'progress', ARGV[3])
return { 'ok' }
