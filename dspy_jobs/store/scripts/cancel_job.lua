-- Cancel a job: at once if it is queued, by asking its worker if it runs. Answers {what, status, rows of `tell`}.
-- ARGV: now, id, canceled problem.
local now, id = clock(ARGV[1]), ARGV[2]
local f = fields(id)
if not f then return {'missing', '', told} end
stop_job(id, f, ARGV[3], now)
if f.status == 'queued' then return {'canceled', 'canceled', told} end
if f.status == 'running' then return {'canceling', 'running', told} end
return {f.status == 'canceled' and 'canceled' or 'finished', f.status, told}
