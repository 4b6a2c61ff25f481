-- Enters labels of one matcher into the set of what is served, until a time to live from now by Redis' own clock, and
-- drops what has expired. One key only: the label keys themselves hash to other slots of a Cluster.
-- KEYS[1] sorted set of label|matcher_id by expiry in ms
-- ARGV[1] time to live in ms, ARGV[2..] members
-- Reply: expiry in ms.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local expiry = now + tonumber(ARGV[1])
for i = 2, #ARGV do redis.call('ZADD', KEYS[1], expiry, ARGV[i]) end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. now)
return expiry
