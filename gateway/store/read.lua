-- Current values as text. KEYS: counters; leases that have run out do not count.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local values = {}
for index, key in ipairs(KEYS) do
  if redis.call('TYPE', key).ok == 'zset' then
    values[index] = string.format('%d', redis.call('ZCOUNT', key, '(' .. now, '+inf'))
  else
    values[index] = redis.call('GET', key) or '0'
  end
end
return values
