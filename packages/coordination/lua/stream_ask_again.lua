-- Writes a request once more where its last entry will hardly be answered: the stream has it no more, or its consumer
-- has neither answered nor renewed it for a while. One that waits unread stays alone: a second would wait behind it.
-- An entry whose consumer is taken for dead is removed, so that the request does not begin another life beside the new one.
-- KEYS[1] match stream
-- ARGV[1] group, ARGV[2] id of the last entry, ARGV[3] idle ms from which its consumer is silent, ARGV[4] and dead,
-- ARGV[5..] fields and values
-- Reply: the new entry's id, or false.
local id = ARGV[2]
if #redis.call('XRANGE', KEYS[1], id, id) > 0 then
  local held = redis.pcall('XPENDING', KEYS[1], ARGV[1], id, id, 1)
  if held.err or #held == 0 then return false end
  local idle = held[1][3]
  if idle < tonumber(ARGV[3]) then return false end
  if idle >= tonumber(ARGV[4]) then
    redis.call('XACK', KEYS[1], ARGV[1], id)
    redis.call('XDEL', KEYS[1], id)
  end
end
return redis.call('XADD', KEYS[1], '*', unpack(ARGV, 5))
