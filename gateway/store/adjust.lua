-- Correct taken claims. KEYS: counters, the name of their life (the epoch), and (for a correction that may be tried again)
-- the name it is remembered by. Replies who made the correction, a number from 1. ARGV[1]: the epoch the claims were taken in
-- ('' = unknown); [2]: how many seconds to remember the name ('' = no name); [3]: the number of who makes it now. Then per
-- counter: difference (a signed integer), the same for counters that were lost since, lease ('' = none).
-- A counter that is gone stays gone: its window is over. INCRBY is exact over 64 bits; only the sign is looked at here.
local claims, by = (#ARGV - 3) / 3, tonumber(ARGV[3])
local epoch = life(KEYS[claims + 1], redis.call('TIME'))
if ARGV[2] ~= '' and not redis.call('SET', KEYS[#KEYS], by, 'NX', 'EX', ARGV[2]) then
  return tonumber(redis.call('GET', KEYS[#KEYS]))
end
local lost = ARGV[1] ~= '' and epoch ~= ARGV[1]
for index = 1, claims do
  local key, at = KEYS[index], 3 * index + 1
  if ARGV[at + 2] ~= '' then
    redis.call('ZREM', key, ARGV[at + 2])
  elseif redis.call('EXISTS', key) == 1 and redis.call('INCRBY', key, lost and ARGV[at + 1] or ARGV[at]) < 0 then
    redis.call('SET', key, '0', 'KEEPTTL')
  end
end
return by
