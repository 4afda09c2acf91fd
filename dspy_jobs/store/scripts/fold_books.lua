-- Fold books into the totals that are never forgotten (`dj:counted`, where clients are summed up), and close them: what
-- is folded moves to the closed books of the same day, which `GET /costs` reads beside the open ones until they are too
-- old. Totals are what is folded and what stands in open books, and each entry is in one of the two at every moment. So
-- it does not matter who runs this, when, how often or how far; nor whether a day is booked in after its books were
-- closed, as by a clock that was set back: they are open again.
-- The books of the day itself stay open, unless there are more entries than a scrape should have to read.
-- Folds about `limit` entries a call; answers 1 if there are more.
-- ARGV: now, entries of today's books that may stay open, limit, names that metrics may show…
local now, most, left = clock(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local today = costs_key(now):sub(10)

local function fold(day)
  local open, cursor = 'dj:costs:' .. day, '0'
  repeat
    local found = redis.call('HSCAN', open, cursor, 'COUNT', ARGV[3])
    cursor = found[1]
    for i = 1, #found[2], 2 do
      local field, value = found[2][i], found[2][i + 1]
      -- First, for a full Redis lets a script go on that has begun by freeing. As texts the sums are exact to 64 bits.
      if redis.call('HDEL', open, field) == 1 then
        redis.pcall('HINCRBY', open .. ':closed', field, value)
        redis.pcall('HINCRBY', 'dj:counted', field:gsub('[^|]*|([^|]*)$', '%1'), value)
        left = left - 1
      end
    end
  until cursor == '0' or left <= 0
  redis.call('PEXPIRE', open .. ':closed', lifetime_of_books())
end

-- Those that an older version began nobody has put on the list.
for _, key in ipairs({costs_key(now - DAY), costs_key(now)}) do
  if redis.call('EXISTS', key) > redis.call('SISMEMBER', 'dj:open_books', key:sub(10)) then
    redis.call('SADD', 'dj:open_books', key:sub(10))
  end
end
for _, day in ipairs(redis.call('SMEMBERS', 'dj:open_books')) do
  local entries = redis.call('HLEN', 'dj:costs:' .. day)
  if left > 0 and (day ~= today and entries > 0 or entries > most) then fold(day) end
  if redis.call('EXISTS', 'dj:costs:' .. day) == 0 then redis.call('SREM', 'dj:open_books', day) end
end
redis.pcall('SADD', 'dj:known_names', unpack(ARGV, 4)) -- while Redis is full they can wait
return left > 0 and 0 or 1
