-- Tasks that fit a filter, newest first, of one stretch of all tasks by creation. Read-only.
-- KEYS 1 tasks  2 facts  3 tasks_of:<label>, only where the filter names a label
-- ARGV 1 prefix of task keys  2 highest score, '(…' or '+inf'  3 lowest score or '-inf'  4 most tasks looked at
--      5 most tasks found  6… filter (task_filter.lua)
-- Reads the records (ARGV 1 .. id, same slot by its tag): of what is found, and of all it looks at where the facts
-- miss some (a version before them has created tasks) or the label has so few that their records are less to read.
-- Reply: {score that it came to, '' where nothing is left below; ids met without a record; fields and values of each
--        task found, packed}
local fits = filter_of(ARGV, 6)
local left, most = tonumber(ARGV[4]), tonumber(ARGV[5])
local all = redis.call('ZCARD', KEYS[1])
local by_facts = fits and redis.call('ZCARD', KEYS[2]) == all
  and not (KEYS[3] and redis.call('ZCARD', KEYS[3]) * 4 < all)
local set = by_facts and KEYS[2] or KEYS[3] or KEYS[1]
-- What is read behind the last task found is read in vain.
local stride = fits and 250 or most
local vanished, found = {}, {}

-- Whether the task was the last that may be found.
local function take(id)
  local fields = redis.call('HGETALL', ARGV[1] .. id)
  if #fields == 0 then
    vanished[#vanished + 1] = id
    return false
  end
  found[#found + 1] = fields
  return #found == most
end

local function take_by_facts(facts) return take(string.match(facts, ' ([^ ]*)$', 92)) end

local function take_by_record(id)
  local facts = facts_of(ARGV[1] .. id, id)
  if not facts then vanished[#vanished + 1] = id end
  return facts and fits(facts) and take(id)
end

local test = by_facts and fits or function() return true end
local take_it = by_facts and take_by_facts or fits and take_by_record or take

local highest, reached, full = ARGV[2], '', false
repeat
  local count = math.min(stride, left)
  -- Without scores: to write them all out costs as much as to look at the tasks.
  local page = redis.call('ZRANGE', set, highest, ARGV[3], 'BYSCORE', 'REV', 'LIMIT', 0, count)
  local last = page[count]
  for i = 1, #page do
    if test(page[i]) and take_it(page[i]) then
      last, full = page[i], true
      break
    end
  end
  left = left - count
  reached = last and digits(tonumber(redis.call('ZSCORE', set, last))) or ''
  highest = '(' .. reached
until full or reached == '' or left <= 0
return { reached, vanished, packed(found) }
