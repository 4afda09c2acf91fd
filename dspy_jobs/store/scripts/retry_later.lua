-- An attempt did not end the job: keep the attempt, queue the job again when its wait is over. `counter` says what the
-- attempt counts as: tries | limited | none. With a model the job falls back to it and its queue.
-- A job whose cancellation was asked for ends here. ARGV: now, worker, id, token, attempt record, delay (ms),
-- wait reason, canceled problem, counter, model or '', then the calls' bill (see _books.lua).
local now, worker, id = clock(ARGV[1]), ARGV[2], ARGV[3]
local f = fields(id)
if not runs(f, worker, ARGV[4]) then return 'stale' end
local key, due = job_key(id), now + tonumber(ARGV[6])
local sums = {}
book(id, f, 11, now, sums)
add_to_books(sums, now)
keep_record(id, f, ARGV[5])
if f.cancel then
  end_job(id, f, 'canceled', unstarted_outcome(id, 'REVOKED', 'JobCanceled', ARGV[8], now), now)
  return 'canceled'
end
if f.leads then end_flight(id, false, now) end
add('dj:counted', 'attempts|' .. f.model .. '|' .. (ARGV[10] ~= '' and 'fell_back' or 'retried'), 1)
redis.call('HSET', key, 'status', 'queued', 'wait', ARGV[7], 'until', ms(due))
if ARGV[9] ~= 'none' then redis.call('HINCRBY', key, ARGV[9], 1) end
let_go(id, f)
if ARGV[10] ~= '' then fall_back(id, f, ARGV[10]) end
recount(f, 'running', 'queued')
if f.batch ~= '' then hold_to_limits(f.batch, now) end
redis.call('ZADD', 'dj:delayed', due, id)
return 'delayed'
