-- Give back what a reserve took whose answer was lost, if it took anything: it leaves a name behind when it does. KEYS as for
-- reserve: counters, that name, and the name of their life (the epoch). ARGV, per counter: amount, lease ('' = none), flags.
-- Replies 1 when it gave something back. A moment (flag c) stays: it only says when a session was first seen.
life(KEYS[#KEYS], redis.call('TIME'))
if redis.call('DEL', KEYS[#KEYS - 1]) == 0 then return 0 end
for index = 1, #KEYS - 2 do
  local key, at = KEYS[index], 3 * index - 2
  if ARGV[at + 1] ~= '' then
    redis.call('ZREM', key, ARGV[at + 1])
  elseif not string.find(ARGV[at + 2], 'c', 1, true)
    and redis.call('EXISTS', key) == 1 and redis.call('DECRBY', key, ARGV[at]) < 0 then
    redis.call('SET', key, '0', 'KEEPTTL')
  end
end
return 1
