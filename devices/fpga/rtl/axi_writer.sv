// The core's words to write, gathered into AXI bursts: neighbours up to where `BURST` words are whole. A burst is sent
// when all its words are here. A store has landed when the memory has answered its last burst.
module axi_writer #(
    parameter int N = 8,
    parameter int ADDRESS = 40,
    parameter int BURST = 16
) (
    input  logic               clk,
    input  logic               rst,
    input  logic               start,
    input  logic [ADDRESS-1:0] base,           // a multiple of 4096
    output logic               error,
    input  logic               write_valid,
    output logic               write_ready,
    input  logic [       31:0] write_address,
    input  logic               write_last,
    input  logic [    8*N-1:0] write_data,
    output logic               write_landed,
    output logic               awvalid,
    input  logic               awready,
    output logic [ADDRESS-1:0] awaddr,
    output logic [        7:0] awlen,
    output logic               wvalid,
    input  logic               wready,
    output logic [    8*N-1:0] wdata,
    output logic               wlast,
    input  logic               bvalid,
    output logic               bready,
    input  logic [        1:0] bresp
);
  localparam int L = $clog2(N), B = $clog2(BURST);
  localparam int QUEUE = 3;  // log2 of the bursts that wait, and of those that are not answered

  // ---- gathering ----
  logic open, breaks, accept, closes, close, first_last;
  logic [31:0] first, expected, first_address;
  logic [B-1:0] gathered, first_words;
  logic [QUEUE:0] bursts, unanswered;
  logic [B+1:0] words;
  assign breaks = open && write_valid && write_address != expected;
  assign write_ready = !breaks && !words[B+1] && !bursts[QUEUE];
  assign accept = write_valid && write_ready;
  assign closes = accept && (write_last || &write_address[L+:B]);
  assign close = closes || (breaks && !bursts[QUEUE]);
  always_ff @(posedge clk) begin
    if (rst) open <= 1'b0;
    else if (close) open <= 1'b0;
    else if (accept) open <= 1'b1;
    if (accept) begin
      expected <= write_address + 32'(N);
      gathered <= open ? gathered + 1'b1 : '0;
      if (!open) first <= write_address;
    end
  end
  logic [B-1:0] closed_words;
  assign closed_words = !open ? '0 : accept ? gathered + 1'b1 : gathered;
  fifo #(.WIDTH(33 + B), .LOG2(QUEUE)) waiting (
      .clk, .rst, .push(close), .tail({accept && write_last, closed_words, open ? first : write_address}), .pop(sends),
      .head({first_last, first_words, first_address}), .level(bursts)
  );

  // ---- sending ----
  logic sends, writing, landed_last;
  logic [B-1:0] beats_left;
  assign sends = bursts != '0 && !unanswered[QUEUE] && (!awvalid || awready) && (!writing || (wready && wlast));
  assign wvalid = writing;
  assign wlast = beats_left == '0;
  assign bready = 1'b1;
  always_ff @(posedge clk) begin
    if (awready) awvalid <= 1'b0;
    if (wready && wlast) writing <= 1'b0;
    if (wready) beats_left <= beats_left - 1'b1;
    write_landed <= !rst && bvalid && landed_last;
    if (rst) begin
      awvalid <= 1'b0;
      writing <= 1'b0;
      error <= 1'b0;
    end else begin
      if (start) error <= 1'b0;
      else if (bvalid && bresp != 2'b00) error <= 1'b1;
      if (sends) begin
        awvalid <= 1'b1;
        awaddr <= base + ADDRESS'(first_address);
        awlen <= 8'(first_words);
        writing <= 1'b1;
        beats_left <= first_words;
      end
    end
  end
  fifo #(.WIDTH(8*N), .LOG2(B+1)) gather (
      .clk, .rst, .push(accept), .tail(write_data), .pop(writing && wready), .head(wdata), .level(words)
  );
  fifo #(.WIDTH(1), .LOG2(QUEUE)) sent (
      .clk, .rst, .push(sends), .tail(first_last), .pop(bvalid), .head(landed_last), .level(unanswered)
  );
endmodule
