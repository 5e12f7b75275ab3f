// The registers that a host sees, over AXI4-Lite, and the state of a run. Start with the table of the registers.
//   0x00 identity      0x04 N, log2 of the buffers (8 bits and 4 x 5 bits)
//   0x08 write 1: a run starts (the core begins anew; ignored while one is under way)
//   0x0c 0 running, 1 finished, 2 the memory answered with an error
//   0x10 0x14 address of the commands, a multiple of 64      0x18 their number
//   0x1c 0x20 address of the memory image, a multiple of 4096
//   0x40 cycles   0x44 words read   0x48 words written   0x60 + 4 k cycles of the array's activity k, of the last run
module axi_control #(
    parameter int N = 8,
    parameter int A_LOG2 = 12,
    parameter int R_LOG2 = 11,
    parameter int W_LOG2 = 11,
    parameter int ACC_LOG2 = 10,
    parameter int ADDRESS = 40
) (
    input  logic               clk,
    input  logic               rst,
    input  logic               awvalid,
    output logic               awready,
    input  logic [        7:0] awaddr,
    input  logic               wvalid,
    output logic               wready,
    input  logic [       31:0] wdata,
    output logic               bvalid,
    input  logic               bready,
    input  logic               arvalid,
    output logic               arready,
    input  logic [        7:0] araddr,
    output logic               rvalid,
    input  logic               rready,
    output logic [       31:0] rdata,
    output logic               start,
    output logic [ADDRESS-1:0] commands,
    output logic [       31:0] count,
    output logic [ADDRESS-1:0] base,
    input  logic               over,      // nothing is left to do
    input  logic               error,
    input  logic [        2:0] activity,
    input  logic               word_read,
    input  logic               word_written
);
  localparam logic [31:0] IDENTITY = 32'h31465045;  // "EPF1"
  logic running, finished;
  logic [31:0] cycles, words_read, words_written;
  logic [31:0] activities [0:7];
  /* verilator lint_off UNUSEDSIGNAL */ // addresses have fewer bits
  logic [63:0] commands_wide, base_wide;
  /* verilator lint_on UNUSEDSIGNAL */
  assign commands = commands_wide[ADDRESS-1:0];
  assign base = base_wide[ADDRESS-1:0];

  // ---- writing ----
  logic written;
  assign written = awvalid && wvalid && !bvalid;
  assign awready = written;
  assign wready = written;
  always_ff @(posedge clk) begin
    if (rst) bvalid <= 1'b0;
    else bvalid <= written || (bvalid && !bready);
    start <= !rst && written && awaddr == 8'h08 && wdata[0] && !running && !start;
    if (written && !running && !start) begin
      case (awaddr)
        8'h10: commands_wide[31:0] <= wdata;
        8'h14: commands_wide[63:32] <= wdata;
        8'h18: count <= wdata;
        8'h1c: base_wide[31:0] <= wdata;
        8'h20: base_wide[63:32] <= wdata;
        default: ;
      endcase
    end
  end

  // ---- the run ----
  always_ff @(posedge clk) begin
    if (rst || start) begin
      running <= start && !rst;
      finished <= 1'b0;
      cycles <= '0;
      words_read <= '0;
      words_written <= '0;
      for (int k = 0; k < 8; k++) activities[k] <= '0;
    end else if (running) begin
      running <= !over;
      finished <= over;
      cycles <= cycles + 32'd1;
      words_read <= words_read + 32'(word_read);
      words_written <= words_written + 32'(word_written);
      activities[activity] <= activities[activity] + 32'd1;
    end
  end

  // ---- reading ----
  assign arready = !rvalid;
  always_ff @(posedge clk) begin
    if (rst) rvalid <= 1'b0;
    else rvalid <= (arvalid && arready) || (rvalid && !rready);
    if (arready) begin
      case (araddr)
        8'h00: rdata <= IDENTITY;
        8'h04: rdata <= {4'b0, 5'(ACC_LOG2), 5'(W_LOG2), 5'(R_LOG2), 5'(A_LOG2), 8'(N)};
        8'h0c: rdata <= {29'b0, error, finished, running || start};
        8'h40: rdata <= cycles;
        8'h44: rdata <= words_read;
        8'h48: rdata <= words_written;
        default: rdata <= araddr[7:5] == 3'b011 ? activities[araddr[4:2]] : '0;
      endcase
    end
  end
endmodule
