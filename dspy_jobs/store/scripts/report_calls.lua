-- Tell the fleet how calls of a model went and answer its circuit's state: {'closed'} or {'open', ms left}.
-- The window is kept in ten slices. Ms left may be 0: half-open, one probe at a time.
-- ARGV: now, model, queue, successes, faults, fatal ('1' opens at once), probe ('' or who probes),
--       failure threshold, failure rate, window (ms), success threshold, reset (ms).
local now, model, queue, probe = clock(ARGV[1]), ARGV[2], ARGV[3], ARGV[7]
local key, gates = 'dj:circuit:' .. model, queue_key(queue) .. ':gates'
local calls, day = key .. ':calls', 86400000
local c = redis.call('HMGET', key, 'state', 'until', 'successes')

local function open()
  redis.call('HSET', key, 'state', 'open', 'until', ms(now + tonumber(ARGV[12])), 'successes', 0)
  redis.call('PEXPIRE', key, math.max(day, 2 * tonumber(ARGV[12])))
  redis.call('HSET', gates, 'circuit_open', ms(now + tonumber(ARGV[12])))
  redis.call('DEL', calls, key .. ':probe')
  return {'open', tonumber(ARGV[12])}
end

if c[1] == 'open' then
  local left = math.max(0, tonumber(c[2]) - now)
  if probe == '' or redis.call('GET', key .. ':probe') ~= probe then
    if ARGV[6] == '1' then return open() end
    return {'open', left} -- a call that began before the circuit opened
  end
  if ARGV[5] ~= '0' then return open() end
  local successes = redis.call('HINCRBY', key, 'successes', ARGV[4])
  if successes < tonumber(ARGV[11]) then
    redis.call('DEL', key .. ':probe')
    return {'open', 0}
  end
  redis.call('DEL', key, key .. ':probe')
  redis.call('HDEL', gates, 'circuit_open')
  return {'closed'}
end

if ARGV[6] == '1' then return open() end
local slice = math.floor(now / (tonumber(ARGV[10]) / 10))
redis.call('HINCRBY', calls, 's' .. slice, ARGV[4])
redis.call('HINCRBY', calls, 'f' .. slice, ARGV[5])
redis.call('PEXPIRE', calls, ARGV[10])
local flat, good, bad = redis.call('HGETALL', calls), 0, 0
for i = 1, #flat, 2 do
  if tonumber(flat[i]:sub(2)) <= slice - 10 then
    redis.call('HDEL', calls, flat[i])
  elseif flat[i]:sub(1, 1) == 's' then
    good = good + tonumber(flat[i + 1])
  else
    bad = bad + tonumber(flat[i + 1])
  end
end
if ARGV[5] ~= '0' and bad >= tonumber(ARGV[8]) and bad >= tonumber(ARGV[9]) * (good + bad) then return open() end
redis.call('HDEL', gates, 'circuit_open') -- left over if the circuit's own record ran out meanwhile
return {'closed'}
