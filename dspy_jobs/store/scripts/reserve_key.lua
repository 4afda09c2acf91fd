-- Take an idempotency key for a request, or say what became of the one that has it. Repeated by the same holder it
-- prolongs the lock and adds the fingerprint. Answers {what, id, fingerprint, answer}:
--   reserved: carry it out, creating under this id. made: what it creates is there, the answer is not.
--   answered: here it is. mismatch: the key belongs to another request. in_flight: another holder is at it.
-- ARGV: now, key, fingerprint ('' while the body still arrives), holder, lock, lifetime (ms), id ('' creates nothing).
local now, key, print, holder, lock = clock(ARGV[1]), ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local r = redis.call('HMGET', key, 'fingerprint', 'holder', 'until', 'id', 'answer')
local known, id = r[1] or '', r[4] or ARGV[7]
if print ~= '' and known ~= '' and print ~= known then return {'mismatch', id, known, ''} end
if r[5] then return {'answered', id, known, r[5]} end
if r[2] and r[2] ~= holder and tonumber(r[3]) > now then return {'in_flight', id, known, ''} end
if r[2] ~= holder then
  if id ~= '' and redis.call('EXISTS', job_key(id)) == 1 then return {'made', id, known, ''} end
  -- An upload that was cut keeps its id to itself: whoever still is at it finds it empty and cannot commit it,
  -- and the housekeepers discard what it had staged.
  if redis.call('EXISTS', batch_key(id) .. ':jobs') == 1 then
    redis.call('RENAME', batch_key(id) .. ':jobs', batch_key(id .. '_cut') .. ':jobs')
    redis.call('ZREM', 'dj:staging', id)
    redis.call('ZADD', 'dj:staging', 0, id .. '_cut')
  end
  if id:sub(1, 6) == 'batch_' then id = ARGV[7] end
end
if print ~= '' then known = print end
redis.call('HSET', key, 'fingerprint', known, 'holder', holder, 'until', ms(now + lock), 'id', id)
local left = redis.call('PTTL', key)
if left < 0 then left = tonumber(ARGV[6]) end
redis.call('PEXPIRE', key, math.max(left, lock))
return {'reserved', id, known, ''}
