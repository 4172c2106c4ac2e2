import time,sys,multiprocessing as m
def f(_):
    w=time.perf_counter(); p=time.process_time()
    while time.process_time()-p<1.5: pass
    return time.perf_counter()-w
if __name__=='__main__':
    with m.Pool(2) as p: print(p.map(f,[0,0],chunksize=1))
