-- Let go of an idempotency key: with its answer, or without. What has been created keeps the key, and so does what
-- may still be on its way to Redis (`sure` is '0'); else the key is free again. Answers 1 if the holder had it.
-- ARGV: key, holder, sure, answer ('' for none).
local key = ARGV[1]
local r = redis.call('HMGET', key, 'holder', 'id')
if r[1] ~= ARGV[2] then return 0 end
if ARGV[4] ~= '' then
  redis.call('HSET', key, 'answer', ARGV[4])
elseif ARGV[3] == '1' and (r[2] == '' or redis.call('EXISTS', job_key(r[2])) == 0) then
  redis.call('DEL', key)
  return 1
end
redis.call('HDEL', key, 'holder', 'until')
return 1
