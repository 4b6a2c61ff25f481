-- indexing -> pending at the front of the queue, or -> error where the attempts are used up.
-- KEYS 1 epoch  2 task:<id>  3 queue  4 indexing
-- ARGV 1 epoch  2 attempt  3 task id  4 most attempts  5 error as JSON for the last one  6 prefix of label keys
-- The label stays taken while the task is pending again; it is freed (as in task_finish) when the task ends.
-- Reply: {'ok', 'pending' | 'error'} | {'refused', reason}
local refused = refusal(KEYS[1], ARGV[1], KEYS[2], 'indexing', ARGV[2])
if refused then return { 'refused', refused } end
redis.call('SREM', KEYS[4], ARGV[3])
if tonumber(ARGV[2]) >= tonumber(ARGV[4]) then
  redis.call('HSET', KEYS[2], 'status', 'error', 'end_us', digits(now_us()), 'error', ARGV[5])
  free_label(ARGV[6] .. redis.call('HGET', KEYS[2], 'list_id'), ARGV[3])
  return { 'ok', 'error' }
end
local head = redis.call('ZRANGE', KEYS[3], 0, 0, 'WITHSCORES')
local score = tonumber(redis.call('HGET', KEYS[2], 'order'))
if head[2] then score = tonumber(head[2]) - 1 end
redis.call('ZADD', KEYS[3], digits(score), ARGV[3])
redis.call('HSET', KEYS[2], 'status', 'pending')
redis.call('HDEL', KEYS[2], 'indexer', 'start_us', 'progress')
return { 'ok', 'pending' }
