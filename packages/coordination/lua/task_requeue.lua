-- indexing -> pending at the front of its priority, or -> error where the attempts are used up.
-- KEYS 1 epoch  2 task:<id>  3 queue  4 indexing  5 ended  6 tasks  7 facts
-- ARGV 1 epoch  2 attempt  3 task id  4 most attempts  5 error as JSON for the last one  6 prefix of label keys
--      7 milliseconds that it is not to be dispatched for
-- The label stays taken while the task is pending again; it is freed (as in task_finish) when the task ends.
-- Reply: {'ok', 'pending' | 'error'} | {'refused', reason}
local refused = refusal(KEYS[1], ARGV[1], KEYS[2], 'indexing', ARGV[2])
if refused then return { 'refused', refused } end
local task = redis.call('HMGET', KEYS[2], 'list_id', 'priority')
local now = now_us()
redis.call('SREM', KEYS[4], ARGV[3])
if tonumber(ARGV[2]) >= tonumber(ARGV[4]) then
  redis.call('HSET', KEYS[2], 'status', 'error', 'end_us', digits(now), 'error', ARGV[5])
  note_facts(KEYS[6], KEYS[7], KEYS[2], ARGV[3])
  redis.call('ZADD', KEYS[5], digits(now), ARGV[3])
  free_label(ARGV[6] .. (task[1] or ''), ARGV[3])
  return { 'ok', 'error' }
end
redis.call('ZADD', KEYS[3], place_at_front(KEYS[3], task[2] or nil), ARGV[3])
redis.call('HSET', KEYS[2], 'status', 'pending', 'pending_us', digits(now))
redis.call('HDEL', KEYS[2], 'indexer', 'start_us', 'progress')
note_facts(KEYS[6], KEYS[7], KEYS[2], ARGV[3])
local delay = tonumber(ARGV[7])
if delay > 0 then redis.call('HSET', KEYS[2], 'not_before_us', digits(now + delay * 1000)) end
return { 'ok', 'pending' }
