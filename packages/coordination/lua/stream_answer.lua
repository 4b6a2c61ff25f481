-- Writes answers to entries, acknowledges the entries and deletes them, as one change: a client that waits wakes once
-- for all of its answers. An answer that cannot go where its caller wants it (a key of another type, a stream whose ids
-- are used up) harms that caller only. After any other failure nothing is acknowledged: what was written comes again.
-- NOMKSTREAM: a client that is gone gets no stream back.
-- KEYS[1] match stream, KEYS[2..] reply streams
-- ARGV[1] group, ARGV[2] most entries of a reply stream, ARGV[3] number of entries, ARGV[4..] their ids; then in turn
-- where an answer goes, the number of its stream in KEYS or ':' and a channel, and the answer's text
-- Reply: errors of answers that could not be delivered.
local entries = tonumber(ARGV[3])
local undelivered = {}
for i = 4 + entries, #ARGV, 2 do
  local place = tonumber(ARGV[i])
  local written
  if place then
    written = redis.pcall('XADD', KEYS[place], 'NOMKSTREAM', 'MAXLEN', '~', ARGV[2], '*', 'reply', ARGV[i + 1])
  else
    written = redis.pcall('PUBLISH', string.sub(ARGV[i], 2), ARGV[i + 1])
  end
  if type(written) == 'table' and written.err then
    local word = string.match(written.err, '^%S+')
    if word ~= 'WRONGTYPE' and word ~= 'ERR' then return written end
    undelivered[#undelivered + 1] = written.err
  end
end
-- Lua passes on a few thousand values at once.
for first = 4, 3 + entries, 1000 do
  local last = math.min(first + 999, 3 + entries)
  redis.call('XACK', KEYS[1], ARGV[1], unpack(ARGV, first, last))
  redis.call('XDEL', KEYS[1], unpack(ARGV, first, last))
end
return undelivered
