-- Acknowledges and deletes entries whose answers are written (stream_reply.lua), as one change.
-- KEYS[1] match stream
-- ARGV[1] group, ARGV[2..] entry ids
-- Reply: how many were deleted.
local deleted = 0
-- Lua passes on a few thousand values at once.
for first = 2, #ARGV, 1000 do
  local last = math.min(first + 999, #ARGV)
  redis.call('XACK', KEYS[1], ARGV[1], unpack(ARGV, first, last))
  deleted = deleted + redis.call('XDEL', KEYS[1], unpack(ARGV, first, last))
end
return deleted
