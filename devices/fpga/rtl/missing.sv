// Of which units a command still has to wait for commands: bit 0 loads, bit 1 computes, bit 2 stores.
module missing (
    input  core_types::counts_t done,
    input  core_types::counts_t waits,
    output logic [2:0]          units
);
  /* verilator lint_off UNUSEDSIGNAL */ // the signs decide
  logic [15:0] load, compute, store;
  /* verilator lint_on UNUSEDSIGNAL */
  assign load = done.load - waits.load;
  assign compute = done.compute - waits.compute;
  assign store = done.store - waits.store;
  assign units = {store[15], compute[15], load[15]};
endmodule
