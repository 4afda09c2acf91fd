-- Read what totals are made of: {what is folded, open books of each day…}. The number of jobs makes no difference.
-- No ARGV.
local found = {redis.call('HGETALL', 'dj:counted')}
for _, day in ipairs(redis.call('SMEMBERS', 'dj:open_books')) do
  found[#found + 1] = redis.call('HGETALL', 'dj:costs:' .. day)
end
return found
